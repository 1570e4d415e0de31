// A folder as an ext4 image, without mounting anything; the same folder gives the same bytes.
import { run } from './run.ts';

export interface Ext4Options {
  sizeBytes: number;
  uuid: string;
  hashSeed: string;
}

export const ext4Config = new URL('./mke2fs.conf', import.meta.url).pathname;

/** The disk of a sandbox grows to 64 GiB at most; descriptors for it are reserved. */
const growthBlocks = (64 * 1024 ** 3) / 4096;

export async function packExt4(
  tree: string,
  image: string,
  options: Ext4Options,
  epochSec: number,
): Promise<void> {
  const fixed = { E2FSPROGS_FAKE_TIME: String(epochSec), MKE2FS_CONFIG: ext4Config };
  const extended = [
    'lazy_itable_init=0',
    'lazy_journal_init=0',
    `resize=${growthBlocks}`,
    `hash_seed=${options.hashSeed}`,
  ].join(',');
  // A small journal: its blocks are rewritten in turn, and each one is part of the next snapshot.
  const format = ['-t', 'ext4', '-J', 'size=16', '-U', options.uuid, '-E', extended, '-d', tree];
  const size = `${options.sizeBytes / 1024}k`;
  await run(['mke2fs', '-q', ...format, image, size], { env: fixed });
  await fixTimes(image, epochSec);
}

/** mke2fs copies access and change times of the folder, which are those of its unpacking. */
async function fixTimes(image: string, epochSec: number): Promise<void> {
  const inodes = await usedInodes(image);
  const commands = inodes.flatMap((inode) => [
    `set_inode_field <${inode}> atime @${epochSec}`,
    `set_inode_field <${inode}> ctime @${epochSec}`,
  ]);
  await run(['debugfs', '-w', '-f', '-', image], {
    env: { E2FSPROGS_FAKE_TIME: String(epochSec) },
    input: `${commands.join('\n')}\n`,
  });
}

const firstInode = 11;

async function usedInodes(image: string): Promise<number[]> {
  const dump = await run(['dumpe2fs', image]);
  const inodeCount = Number(/^Inode count:\s+(\d+)$/m.exec(dump)?.[1]);
  const free = new Set<number>();
  for (const [, list] of dump.matchAll(/^ {2}Free inodes: (.+)$/gm)) {
    for (const range of list!.split(', ')) {
      const [first, last] = range.split('-').map(Number) as [number, number?];
      for (let inode = first; inode <= (last ?? first); inode++) free.add(inode);
    }
  }
  // 2 is the root folder, those below 11 the file system's own.
  const used = [2];
  for (let inode = firstInode; inode <= inodeCount; inode++) if (!free.has(inode)) used.push(inode);
  return used;
}
