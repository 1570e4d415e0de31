import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Build } from './build.ts';

/** What a build takes on this host's disk: allocated blocks, in bytes. */
export interface BuildSize {
  readonly id: string;
  /** Memory's; a disk-only build's is the disk's. */
  readonly generation: number;
  /** All files of the build's folder. */
  readonly storedBytes: number;
  readonly memoryStoredBytes: number;
  readonly diskStoredBytes: number;
  readonly diskOnly: boolean;
  readonly guestUnresponsive: boolean;
}

export async function measureBuild({ id, files, manifest, memory, disk }: Build): Promise<BuildSize> {
  let storedBytes = 0;
  for (const name of await readdir(files.dir))
    storedBytes += await allocatedBytes(path.join(files.dir, name));
  return {
    id,
    generation: (memory ?? disk).header.generation,
    storedBytes,
    memoryStoredBytes: memory === null ? 0 : await allocatedBytes(files.memfile),
    diskStoredBytes: await allocatedBytes(files.rootfs),
    diskOnly: memory === null,
    guestUnresponsive: manifest.guest_unresponsive,
  };
}

async function allocatedBytes(file: string): Promise<number> {
  return (await stat(file)).blocks * 512;
}
