/** Checksums of what a build stores: of each 1 MiB chunk, over the stored blocks in it, in file order. */
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { CHUNK_BYTES, type Header, type ManifestImage, ownEntries } from '@thaw/snapshot';
import { readSpan } from './span.ts';

const GAP_BYTES_MAX = 64 << 10;

type Chunks = ManifestImage['chunks'];

interface Part {
  start: number;
  end: number;
}

/** Reads only the blocks that `header`'s own build stores in `file`: holes cost nothing. */
export async function checksumChunks(file: string, header: Header): Promise<Chunks> {
  const handle = await open(file, 'r');
  try {
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    const chunks: Chunks = [];
    for (const [index, parts] of partsByChunk(header)) {
      chunks.push([index, await checksumParts(handle, parts, buffer)]);
    }
    return chunks;
  } finally {
    await handle.close();
  }
}

/** Bytes that the file must have at least. */
export function storedEnd(header: Header): number {
  return ownEntries(header).reduce((end, entry) => Math.max(end, entry.storageOffset + entry.length), 0);
}

function* partsByChunk(header: Header): Generator<[number, Part[]]> {
  let current: [number, Part[]] | undefined;
  for (const { storageOffset, length } of ownEntries(header)) {
    const end = storageOffset + length;
    for (let start = storageOffset; start < end; ) {
      const index = Math.floor(start / CHUNK_BYTES);
      const part = { start, end: Math.min(end, (index + 1) * CHUNK_BYTES) };
      if (current?.[0] === index) {
        current[1].push(part);
      } else {
        if (current !== undefined) yield current;
        current = [index, [part]];
      }
      start = part.end;
    }
  }
  if (current !== undefined) yield current;
}

async function checksumParts(handle: FileHandle, parts: Part[], buffer: Buffer): Promise<string> {
  const hash = createHash('sha256');
  for (const group of groupNear(parts)) {
    const from = group[0]!.start;
    const length = group.at(-1)!.end - from;
    const read = await readSpan(handle, buffer.subarray(0, length), from);
    if (read < length) throw new Error(`the file ends at ${from + read}`);
    for (const { start, end } of group) hash.update(buffer.subarray(start - from, end - from));
  }
  return hash.digest('hex');
}

/** Parts that one read fetches for less than two: those with little between them. */
function* groupNear(parts: Part[]): Generator<Part[]> {
  let group: Part[] = [];
  for (const part of parts) {
    const last = group.at(-1);
    if (last !== undefined && part.start - last.end > GAP_BYTES_MAX) {
      yield group;
      group = [];
    }
    group.push(part);
  }
  yield group;
}
