/**
 * The last samples of one sandbox: a file of places of 64 bytes, little endian, written one after another and again from
 * the first. There is no head to keep: each place says the number of its sample, and the largest was written last.
 *
 *    0 f64 ms since 1970     8 u32 number, from 1 (0: empty)   12 u32 CPUs    16 f64 percent of CPUs used
 *   24 u64 memory used      32 u64 memory                      40 u64 cache   48 u64 disk used   56 u64 disk
 */
import { open, readFile } from 'node:fs/promises';
import type { Load } from '../guest/load.ts';

export interface Sample extends Load {
  /** Milliseconds since 1970, by the host's clock. */
  atMs: number;
}

const PLACE_BYTES = 64;
/** Six hours, one each 5 s. */
export const PLACES = 4320;
const BYTES = ['memUsedBytes', 'memTotalBytes', 'memCacheBytes', 'diskUsedBytes', 'diskTotalBytes'] as const;

export interface Ring {
  /** Oldest first. */
  samples: Sample[];
  /** The number of the next one. */
  next: number;
}

/** A file that is not there, or is damaged, has fewer samples. */
export async function readRing(file: string): Promise<Ring> {
  const content = await readFile(file).catch(() => Buffer.alloc(0));
  const found: { number: number; sample: Sample }[] = [];
  const places = Math.min(PLACES, Math.floor(content.length / PLACE_BYTES));
  for (let place = 0; place < places; place++) {
    const at = place * PLACE_BYTES;
    const number = content.readUInt32LE(at + 8);
    if (number === 0 || number % PLACES !== place) continue;
    found.push({ number, sample: readSample(content, at) });
  }
  found.sort((one, other) => one.number - other.number);
  const samples = found.map(({ sample }) => sample);
  return { samples, next: (found.at(-1)?.number ?? 0) + 1 };
}

/** Writes one sample to its place; the folder must be there. Not synced: samples may be lost with the machine. */
export async function writeSample(file: string, number: number, sample: Sample): Promise<void> {
  const place = Buffer.alloc(PLACE_BYTES);
  place.writeDoubleLE(sample.atMs, 0);
  place.writeUInt32LE(number, 8);
  place.writeUInt32LE(sample.cpuCount, 12);
  place.writeDoubleLE(sample.cpuUsedPct, 16);
  for (const [index, field] of BYTES.entries()) place.writeBigUInt64LE(BigInt(sample[field]), 24 + 8 * index);
  await using handle = await open(file, 'r+').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return open(file, 'wx+', 0o600);
    throw error;
  });
  await handle.write(place, 0, PLACE_BYTES, (number % PLACES) * PLACE_BYTES);
}

function readSample(content: Buffer, at: number): Sample {
  const [memUsedBytes = 0, memTotalBytes = 0, memCacheBytes = 0, diskUsedBytes = 0, diskTotalBytes = 0] =
    BYTES.map((_, index) => Number(content.readBigUInt64LE(at + 24 + 8 * index)));
  return {
    atMs: content.readDoubleLE(at),
    cpuCount: content.readUInt32LE(at + 12),
    cpuUsedPct: content.readDoubleLE(at + 16),
    ...{ memUsedBytes, memTotalBytes, memCacheBytes, diskUsedBytes, diskTotalBytes },
  };
}
