/** Checksums of what a build stores: of each 1 MiB chunk, over the stored blocks in it, in file order. */
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { CHUNK_BYTES, type Header, type ManifestImage, ownEntries } from '@thaw/snapshot';
import { readSpan } from './span.ts';

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

/** One read for a chunk: from its first stored block to its last. */
async function checksumParts(handle: FileHandle, parts: Part[], buffer: Buffer): Promise<string> {
  const from = parts[0]!.start;
  const length = parts.at(-1)!.end - from;
  const read = await readSpan(handle, buffer.subarray(0, length), from);
  if (read < length) throw new Error(`the file ends at ${from + read}`);
  const hash = createHash('sha256');
  for (const { start, end } of parts) hash.update(buffer.subarray(start - from, end - from));
  return hash.digest('hex');
}
