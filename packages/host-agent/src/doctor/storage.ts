/** The file system that holds builds and disks. */
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { freeBytes } from '../os/free-bytes.ts';
import { run } from '../os/run.ts';
import { type Finding, fail, type Machine, ok, warn } from './finding.ts';
import { reason } from './kernel.ts';

const GIB = 2 ** 30;
const FREE_LEAST = 1 * GIB;
const FREE_WISHED = 10 * GIB;

export async function storage({ data, versionDir }: Machine): Promise<Finding[]> {
  const folder = await nearest(data);
  return [await holes(folder, versionDir), await space(folder), await reflink(folder)];
}

async function holes(folder: string, versionDir: string): Promise<Finding> {
  const name = 'sparse files';
  try {
    await run([path.join(versionDir, 'bin/thaw-blockstore'), 'probe', folder], { timeoutMs: 10_000 });
    return ok(name, `${folder} tells the holes of a file exactly`);
  } catch (error) {
    return fail(
      name,
      `${folder} does not tell the holes of a file: ${reason(error)}`,
      'put THAW_DATA on ext4, XFS or btrfs',
    );
  }
}

async function space(folder: string): Promise<Finding> {
  const free = await freeBytes(folder);
  const found = `${(free / GIB).toFixed(1)} GiB free in ${folder}`;
  if (free < FREE_LEAST) return fail('disk space', found, 'free some, or put THAW_DATA on another disk');
  if (free < FREE_WISHED)
    return warn('disk space', found, "a pause writes up to all of a guest's memory: free some");
  return ok('disk space', found);
}

async function reflink(folder: string): Promise<Finding> {
  const scratch = await mkdtemp(path.join(folder, '.thaw-doctor-'));
  try {
    const [from, to] = [path.join(scratch, 'a'), path.join(scratch, 'b')];
    await writeFile(from, Buffer.alloc(65536, 1));
    await run(['cp', '--reflink=always', from, to], { timeoutMs: 5000 });
    return ok('reflink', 'copies of images share their blocks');
  } catch {
    return ok(
      'reflink',
      'not on this file system: the first import of an image copies it (nothing else differs)',
    );
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The folder itself or, before the first start, the one that it will be made in. */
async function nearest(folder: string): Promise<string> {
  for (let each = path.resolve(folder); ; each = path.dirname(each)) {
    const found = await stat(each).catch(() => undefined);
    if (found?.isDirectory() || each === '/') return each;
  }
}
