/** Python environments with a version of the SDK each, in the cache; the same packages every time. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const CACHE = process.env.THAW_CACHE ?? '/var/cache/thaw';
const INSTALL_TIMEOUT_MS = 600_000;

function requirementsOf(version: string): string {
  return path.join(import.meta.dirname, 'python/requirements', `${version}.txt`);
}

function folderOf(version: string): string {
  const hash = createHash('sha256')
    .update(readFileSync(requirementsOf(version)))
    .digest('hex');
  return path.join(CACHE, 'conformance', `python-${version}-${hash.slice(0, 12)}`);
}

/** The interpreter that imports this version. */
export function pythonOf(version: string): string {
  return path.join(folderOf(version), 'bin/python');
}

/** Makes the environment of each version that is not there yet, from the package index. */
export async function installPython(versions: readonly string[]): Promise<void> {
  for (const version of new Set(versions)) {
    const folder = folderOf(version);
    if (existsSync(folder)) continue;
    const making = `${folder}.${process.pid}`;
    await mkdir(path.dirname(folder), { recursive: true });
    try {
      await run('/usr/bin/python3', ['-m', 'venv', making]);
      const pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--disable-pip-version-check'];
      await run(path.join(making, 'bin/python'), [...pip, '--requirement', requirementsOf(version)], {
        timeout: INSTALL_TIMEOUT_MS,
      });
      await rename(making, folder);
    } finally {
      await rm(making, { recursive: true, force: true });
    }
  }
}
