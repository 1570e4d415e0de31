/** What the CLI takes from the environment. */
import { readFileSync } from 'node:fs';
import { ThawError } from '@thaw/api';
import { Thaw } from '@thaw/sdk';
import { keyFile } from './up/paths.ts';

export interface Config {
  data: string;
  run: string;
  /** The installed version this program runs from; undefined in a checkout. */
  version: string | undefined;
  listen: string;
  proxy: {
    /** Undefined: where the control plane likes; `off`: nowhere. */
    listen: string | undefined;
    cert: string | undefined;
    key: string | undefined;
  };
  url: string;
  key: string | undefined;
  databaseUrl: string | undefined;
}

export function readConfig(env: NodeJS.ProcessEnv): Config {
  return {
    data: env.THAW_DATA || '/var/lib/thaw',
    run: env.THAW_RUN || '/run/thaw',
    version: env.THAW_VERSION_DIR || undefined,
    listen: env.THAW_LISTEN || '127.0.0.1:8080',
    proxy: {
      listen: env.THAW_PROXY_LISTEN || undefined,
      cert: env.THAW_PROXY_TLS_CERT || undefined,
      key: env.THAW_PROXY_TLS_KEY || undefined,
    },
    url: env.THAW_URL || 'http://127.0.0.1:8080',
    key: env.THAW_API_KEY || undefined,
    databaseUrl: env.DATABASE_URL || undefined,
  };
}

/** A client of the Thaw that the environment names. Throws `unauthenticated` without a key. */
export function connect(config: Config): Thaw {
  return new Thaw({ url: config.url, key: config.key ?? readKey(config.data) });
}

function readKey(data: string): string {
  try {
    return readFileSync(keyFile(data), 'utf8').trim();
  } catch (error) {
    const how = 'set THAW_API_KEY, or run as the user that `thaw up` runs as';
    throw new ThawError('unauthenticated', `no API key: ${how}`, { cause: error });
  }
}
