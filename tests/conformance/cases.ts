/** The cases of the suite, as both languages' programs know them by name; and which of them an SDK runs. */
import catalogue from './cases.json' with { type: 'json' };
import type { Sdk } from './sdks.ts';

export interface Case {
  /** `feature/what`. */
  name: string;
  title: string;
  core: boolean;
  /** Against a host that `Trouble` has made. */
  trouble: boolean;
  /** The first version that has it, by minor (`2.19`); false: no version has. */
  since: Record<Sdk['language'], string | false>;
}

const FIRST = '2.0';

interface Entry {
  name: string;
  title: string;
  core?: boolean;
  trouble?: boolean;
  js?: string | false;
  python?: string | false;
}

export const CASES: readonly Case[] = (catalogue as Entry[]).map((entry) => ({
  name: entry.name,
  title: entry.title,
  core: entry.core ?? false,
  trouble: entry.trouble ?? false,
  since: { JavaScript: entry.js ?? FIRST, Python: entry.python ?? FIRST },
}));

/** Whether the SDK can do at all what the case is about. */
export function has(sdk: Sdk, { since }: Case): boolean {
  const first = since[sdk.language];
  if (first === false) return false;
  const minor = (version: string) => Number(version.split('.')[1]);
  return minor(sdk.version) >= minor(first);
}

export function casesOf(sdk: Sdk): Case[] {
  return CASES.filter((one) => (sdk.extent === 'full' || one.core) && has(sdk, one));
}
