import { statfs } from 'node:fs/promises';

/** What whoever is not root can still write to the file system of a folder, in bytes. */
export async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}
