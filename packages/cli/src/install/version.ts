/** Versions side by side below a prefix: each in a folder named by its content, and a link to the current one. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  symlink,
} from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { ThawError } from '@thaw/api';
import { CHECKSUMS, versionFile } from './paths.ts';

export interface Version {
  /** As released: `0.1.0`. */
  version: string;
  /** The first digits of its content's SHA-256; names its folder. */
  id: string;
}

export const VERSION_ID = /^[0-9a-f]{12}$/;
const KEPT_VERSIONS = 3;

/** Throws `not_found` for a folder that holds no version. */
export async function readVersion(folder: string): Promise<Version> {
  const text = await readFile(versionFile(folder), 'utf8').catch(() => undefined);
  const found = text === undefined ? undefined : parseVersion(text);
  if (found === undefined) throw new ThawError('not_found', `${folder} is no version of Thaw`);
  return found;
}

/** The same for who can't wait. */
export function readVersionSync(folder: string): Version | undefined {
  try {
    return parseVersion(readFileSync(versionFile(folder), 'utf8'));
  } catch {
    return undefined;
  }
}

function parseVersion(text: string): Version | undefined {
  const { version, id } = JSON.parse(text) as Partial<Version>;
  if (typeof version !== 'string' || typeof id !== 'string' || !VERSION_ID.test(id)) return undefined;
  return { version, id };
}

/** Throws `invalid_state` when files of an unpacked release are not what they were when it was made. */
async function verify(folder: string): Promise<void> {
  if (!(await exists(path.join(folder, CHECKSUMS)))) return;
  const flags = ['--check', '--strict', '--quiet', CHECKSUMS];
  await promisify(execFile)('/usr/bin/sha256sum', flags, { cwd: folder }).catch(
    (error: { stdout?: string }) => {
      const first = error.stdout?.trim().split('\n')[0] ?? '';
      throw new ThawError('invalid_state', `${folder} is damaged: ${first}: unpack the release again`, {
        cause: error,
      });
    },
  );
}

/**
 * Copies the version in `from` to its place below `versions`, if it is not there: as a whole or not at all. What it
 * compiled while it ran stays behind.
 */
export async function placeVersion(from: string, versions: string, id: string): Promise<string> {
  const to = path.join(versions, id);
  if (await exists(to)) return to;
  await verify(from);
  await mkdir(versions, { recursive: true, mode: 0o755 });
  await using undo = new AsyncDisposableStack();
  const fresh = await mkdtemp(path.join(versions, '.new-'));
  undo.defer(() => rm(fresh, { recursive: true, force: true }));
  // Images are sparse, and copies may share their blocks; modes are kept, owners are root's.
  const flags = [
    '--recursive',
    '--no-dereference',
    '--preserve=mode,timestamps,links',
    '--sparse=always',
    '--reflink=auto',
  ];
  const parts = (await readdir(from)).filter((name) => name !== 'cache').map((name) => path.join(from, name));
  await promisify(execFile)('/bin/cp', [...flags, '--target-directory', fresh, ...parts]);
  await promisify(execFile)('/bin/chmod', ['755', fresh]);
  await rename(fresh, to).catch((error: NodeJS.ErrnoException) => {
    // Somebody else has just installed the same content.
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
  });
  return to;
}

/** Points `link` to `target`, whatever it was before, in one step. */
export async function pointTo(link: string, target: string): Promise<void> {
  await mkdir(path.dirname(link), { recursive: true });
  const fresh = `${link}.${process.pid}`;
  await symlink(target, fresh);
  await rename(fresh, link);
}

/** Removes old versions below `versions`, but none of `keep`, among the newest, or that a process runs from. */
export async function prune(versions: string, keep: readonly string[]): Promise<string[]> {
  const current = await realpath(path.join(versions, '../current')).catch(() => undefined);
  const found = await Promise.all(
    (await versionsBelow(versions)).map(async (name) => {
      const folder = path.join(versions, name);
      return { folder, usedMs: (await stat(folder)).mtimeMs };
    }),
  );
  const old = found.toSorted((a, b) => b.usedMs - a.usedMs).slice(KEPT_VERSIONS);
  const busy = await programs();
  const removed: string[] = [];
  for (const { folder } of old) {
    const inUse = busy.some((file) => file.startsWith(`${folder}/`));
    if (folder === current || keep.includes(folder) || inUse) continue;
    await rm(folder, { recursive: true, force: true });
    removed.push(folder);
  }
  return removed;
}

/** Their names. */
export async function versionsBelow(versions: string): Promise<string[]> {
  return (await readdir(versions).catch(() => [])).filter((name) => VERSION_ID.test(name));
}

/** The program of every process. */
async function programs(): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  return Promise.all(pids.map((pid) => readlink(`/proc/${pid}/exe`).catch(() => '')));
}

export function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}
