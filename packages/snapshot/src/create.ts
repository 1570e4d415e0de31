import { type BuildId, ZERO_FILL } from './build-id.ts';
import { SnapshotFormatError } from './format-error.ts';
import { checkHeader, type Entry, type Header } from './header.ts';
import { merge } from './merge.ts';
import { normalise } from './normalise.ts';
import { isCount, isPowerOfTwo } from './number.ts';
import type { Run } from './runs.ts';

/** `packed`: stored runs follow each other in the build's file; `sparse`: each lies at its own offset. */
export type Layout = 'packed' | 'sparse';

export interface CreateHeader {
  readonly build: BuildId;
  /** Bytes of memory or disk; at least the parent's: what lies beyond the parent is zero fill. */
  readonly size: number;
  readonly blockSize: number;
  /** What changed since the parent, ascending; blocks in no run are the parent's. */
  readonly runs: readonly Run[];
  readonly layout: Layout;
  readonly parent?: Header | undefined;
}

/** The header of a new generation, in normal form. Throws `SnapshotFormatError` if the runs make no sense. */
export function createHeader({ build, size, blockSize, runs, layout, parent }: CreateHeader): Header {
  if (!isPowerOfTwo(blockSize))
    throw new SnapshotFormatError(`block size ${blockSize} is not a power of two`);
  if (parent !== undefined && parent.blockSize !== blockSize) {
    throw new SnapshotFormatError(`block size ${blockSize} differs from the parent's, ${parent.blockSize}`);
  }
  if (parent !== undefined && size < parent.size) {
    throw new SnapshotFormatError(`size ${size} is below the parent's, ${parent.size}`);
  }
  const header: Header = {
    size,
    blockSize,
    generation: parent === undefined ? 0 : parent.generation + 1,
    build,
    base: parent?.base ?? build,
    entries: normalise(merge(below(parent, size), place(runs, { build, size, blockSize, layout }))),
  };
  checkHeader(header);
  return header;
}

/** Bytes that the stored runs take. */
export function storedBytes(runs: readonly Run[]): number {
  return runs.reduce((sum, run) => sum + (run.kind === 'stored' ? run.length : 0), 0);
}

function below(parent: Header | undefined, size: number): Entry[] {
  const from = parent?.size ?? 0;
  const entries = [...(parent?.entries ?? [])];
  if (size > from) entries.push({ offset: from, length: size - from, build: ZERO_FILL, storageOffset: 0 });
  return entries;
}

function* place(runs: readonly Run[], header: Omit<CreateHeader, 'runs'>): Generator<Entry> {
  let end = 0;
  let packed = 0;
  for (const [index, { offset, length, kind }] of runs.entries()) {
    const fault = runFault(offset, length, end, header);
    if (fault !== undefined) throw new SnapshotFormatError(`run ${index} ${fault}`);
    end = offset + length;
    if (kind === 'zero') {
      yield { offset, length, build: ZERO_FILL, storageOffset: 0 };
      continue;
    }
    yield {
      offset,
      length,
      build: header.build,
      storageOffset: header.layout === 'packed' ? packed : offset,
    };
    packed += length;
  }
}

function runFault(
  offset: number,
  length: number,
  end: number,
  header: Omit<CreateHeader, 'runs'>,
): string | undefined {
  if (!isCount(offset) || !isCount(length) || length === 0) return 'is empty or not made of whole numbers';
  if (offset % header.blockSize !== 0 || length % header.blockSize !== 0)
    return 'is not aligned to the block size';
  if (offset < end) return 'starts before the run before it ends';
  if (offset > header.size || length > header.size - offset) return 'reaches past the size';
  return undefined;
}
