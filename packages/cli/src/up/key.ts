/** The first API key: made once, kept beside the data for the CLI. */
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { API_KEY, newApiKey, ThawError } from '@thaw/api';

/** The key in `file`, which is made if missing; it is never seen half-written, nor by other users. */
export async function keepKey(file: string): Promise<string> {
  const fresh = `${file}.${process.pid}`;
  await writeFile(fresh, `${newApiKey()}\n`, { mode: 0o600 });
  await link(fresh, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  await rm(fresh);
  const key = (await readFile(file, 'utf8')).trim();
  if (!API_KEY.test(key))
    throw new ThawError('invalid_request', `${file} holds no API key: remove it to get a new one`);
  return key;
}

/** A new key in the place of one that is valid no more. */
export async function renewKey(file: string): Promise<string> {
  const key = newApiKey();
  const fresh = `${file}.${process.pid}`;
  await writeFile(fresh, `${key}\n`, { mode: 0o600 });
  await rename(fresh, file);
  return key;
}
