/** A name for the data folder that no other has: its rows in a database are known by it. */
import { randomUUID } from 'node:crypto';
import { link, readFile, rm, writeFile } from 'node:fs/promises';

/** The name in `file`, which is made if missing. */
export async function keepIdentity(file: string): Promise<string> {
  const fresh = `${file}.${process.pid}`;
  await writeFile(fresh, `${randomUUID()}\n`, { mode: 0o600 });
  await link(fresh, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  await rm(fresh);
  return (await readFile(file, 'utf8')).trim();
}
