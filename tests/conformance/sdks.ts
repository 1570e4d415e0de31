/** The SDKs under test: as npm and PyPI have them, unmodified. */
import path from 'node:path';
import { pythonOf } from './python.ts';

export type Mode = 'plain' | 'tls';

export interface Sdk {
  language: 'JavaScript' | 'Python';
  version: string;
  /** The Python SDK comes twice. */
  flavour?: 'sync' | 'async';
  /** Every case, or the core ones. */
  extent: 'full' | 'core';
  modes: readonly Mode[];
  /** Of npm: the name it is installed by. */
  package?: string;
}

const BOTH = ['plain', 'tls'] as const;
/** These know only `E2B_DOMAIN`: the API is `https://api.{domain}` for them. */
const TLS = ['tls'] as const;

export const SDKS: readonly Sdk[] = [
  { language: 'JavaScript', version: '2.51.0', package: 'e2b', extent: 'full', modes: BOTH },
  { language: 'JavaScript', version: '2.45.0', package: 'e2b-2.45', extent: 'core', modes: BOTH },
  { language: 'JavaScript', version: '2.19.5', package: 'e2b-2.19', extent: 'core', modes: BOTH },
  { language: 'JavaScript', version: '2.2.1', package: 'e2b-2.2', extent: 'core', modes: TLS },
  { language: 'Python', version: '2.63.0', flavour: 'sync', extent: 'full', modes: BOTH },
  { language: 'Python', version: '2.63.0', flavour: 'async', extent: 'full', modes: BOTH },
  { language: 'Python', version: '2.45.1', flavour: 'sync', extent: 'core', modes: BOTH },
  { language: 'Python', version: '2.25.1', flavour: 'sync', extent: 'core', modes: BOTH },
  { language: 'Python', version: '2.2.0', flavour: 'sync', extent: 'core', modes: TLS },
];

export function nameOf(sdk: Sdk): string {
  return `${sdk.language} ${sdk.version}${sdk.extent === 'full' && sdk.flavour ? ` ${sdk.flavour}` : ''}`;
}

/** The program that runs cases with this SDK; the names of cases follow. */
export function commandOf(sdk: Sdk, mode: Mode): string[] {
  if (sdk.language === 'JavaScript') {
    const main = path.join(import.meta.dirname, 'js/main.ts');
    return [process.execPath, main, '--package', sdk.package!, '--mode', mode];
  }
  const main = path.join(import.meta.dirname, 'python/main.py');
  return [pythonOf(sdk.version), '-B', main, '--flavour', sdk.flavour!, '--mode', mode];
}
