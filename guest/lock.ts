// The lock: which version of every Debian package the guest was last made from.
import { readFile } from 'node:fs/promises';
import { type ImageName, imageNames, suite } from './recipe.ts';
import { replaceFile } from './step.ts';

/** Package name to version. */
export type Versions = Record<string, string>;

export interface Lock {
  suite: string;
  kernel: Versions;
  images: Record<ImageName, Versions>;
}

/** A locked version that the archive no longer has. */
export interface Replaced {
  package: string;
  locked: string | null;
  used: string | null;
}

export const lockFile = new URL('./lock.json', import.meta.url).pathname;

export async function readLock(): Promise<Lock> {
  return JSON.parse(await readFile(lockFile, 'utf8'));
}

export async function writeLock(kernel: Versions, images: Record<ImageName, Versions>): Promise<void> {
  const lock: Lock = {
    suite,
    kernel: sorted(kernel),
    images: Object.fromEntries(imageNames.map((name) => [name, sorted(images[name])])) as Lock['images'],
  };
  await replaceFile(lockFile, `${JSON.stringify(lock, null, 2)}\n`);
}

/** The differences between what was asked for and what was used. */
export function replacements(locked: Versions, used: Versions): Replaced[] {
  const names = [...new Set([...Object.keys(locked), ...Object.keys(used)])].sort();
  return names
    .filter((name) => locked[name] !== used[name])
    .map((name) => ({ package: name, locked: locked[name] ?? null, used: used[name] ?? null }));
}

export function describe({ package: name, locked, used }: Replaced): string {
  if (locked === null) return `${name} ${used} came in, it is not in the lock`;
  if (used === null) return `${name} ${locked} is no longer needed`;
  return `${name} ${locked} is not in the archive, ${used} used instead`;
}

const sorted = (versions: Versions): Versions =>
  Object.fromEntries(Object.entries(versions).sort(([a], [b]) => (a < b ? -1 : 1)));
