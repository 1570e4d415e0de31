/** What an installation made, so that `uninstall` removes that and nothing else. */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import { z } from 'zod';
import type { InstallPaths } from './paths.ts';

const schema = z.object({
  /** Ids of the versions that were put below the prefix. */
  versions: z.array(z.string().regex(/^[0-9a-f]{12}$/)),
  /** Files and links outside of the prefix, as the installed system sees them. */
  files: z.array(z.string().startsWith('/')),
  users: z.array(z.string()),
  systemd: z.boolean(),
  data: z.string().startsWith('/'),
  run: z.string().startsWith('/'),
});

export type InstallRecord = z.infer<typeof schema>;

/** Undefined where nothing is installed. */
export async function findRecord(paths: InstallPaths): Promise<InstallRecord | undefined> {
  const file = paths.at(paths.record);
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  const parsed = schema.safeParse(parseJson(text));
  if (!parsed.success)
    throw new ThawError('invalid_state', `${file} is damaged: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/** Throws `not_found` where nothing is installed. */
export async function readRecord(paths: InstallPaths): Promise<InstallRecord> {
  const record = await findRecord(paths);
  if (record === undefined)
    throw new ThawError('not_found', `Thaw is not installed in ${paths.at(paths.prefix)}: thaw install`);
  return record;
}

export async function writeRecord(paths: InstallPaths, record: InstallRecord): Promise<void> {
  const file = paths.at(paths.record);
  await writeFile(`${file}.new`, `${JSON.stringify(record, undefined, 2)}\n`, { mode: 0o644 });
  await rename(`${file}.new`, file);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
