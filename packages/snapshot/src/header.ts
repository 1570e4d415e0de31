import { type BuildId, isBuildId, ZERO_FILL } from './build-id.ts';
import { SnapshotFormatError } from './format-error.ts';
import { isCount, isPowerOfTwo, MAX_OFFSET } from './number.ts';

/** One run of blocks that lie together in one build, or a run of zero fill. All values in bytes. */
export interface Entry {
  readonly offset: number;
  readonly length: number;
  /** `ZERO_FILL` for blocks that are all zero. */
  readonly build: BuildId;
  /** Where the run starts in the build's file; 0 for zero fill. */
  readonly storageOffset: number;
}

/** Maps every block of a sandbox's memory or disk to a build; always in normal form. */
export interface Header {
  /** Bytes of memory or disk described. */
  readonly size: number;
  /** Bytes; a power of two. */
  readonly blockSize: number;
  /** How many builds lie under this one. */
  readonly generation: number;
  readonly build: BuildId;
  /** The build at the bottom of the chain. */
  readonly base: BuildId;
  readonly entries: readonly Entry[];
}

/** Throws unless `header` is in normal form: sorted, covering [0, size), runs as long as they can be. */
export function checkHeader(header: Header): void {
  const { size, blockSize, generation } = header;
  if (!isPowerOfTwo(blockSize))
    throw new SnapshotFormatError(`block size ${blockSize} is not a power of two`);
  if (!isCount(size) || size === 0 || size % blockSize !== 0) {
    throw new SnapshotFormatError(`size ${size} is zero, above 2^53 or not a multiple of the block size`);
  }
  if (!isCount(generation))
    throw new SnapshotFormatError(`generation ${generation} is not a whole number up to 2^53`);
  for (const id of [header.build, header.base]) {
    if (!isBuildId(id))
      throw new SnapshotFormatError(`build or base "${id}" is not a lower-case UUID other than nil`);
  }
  let end = 0;
  let before: Entry | undefined;
  for (const [index, entry] of header.entries.entries()) {
    const reason = entryFault(entry, header, end, before);
    if (reason !== undefined) throw new SnapshotFormatError(`entry ${index} ${reason}`);
    end += entry.length;
    before = entry;
  }
  if (end !== size) throw new SnapshotFormatError(`the entries end at ${end}, the size is ${size}`);
}

/** True if `entry`, which starts where `before` ends, belongs to the same run. */
export function continues(before: Entry, entry: Entry): boolean {
  if (before.build !== entry.build) return false;
  return entry.build === ZERO_FILL || before.storageOffset + before.length === entry.storageOffset;
}

/** Every build the entries name, each once. */
export function buildsOf(header: Header): BuildId[] {
  const builds = new Set(header.entries.map((entry) => entry.build));
  builds.delete(ZERO_FILL);
  return [...builds];
}

/** The runs that `header`'s own build stores: ascending in its file. */
export function ownEntries(header: Header): Entry[] {
  return header.entries.filter((entry) => entry.build === header.build);
}

function entryFault(
  entry: Entry,
  { size, blockSize }: Header,
  end: number,
  before?: Entry,
): string | undefined {
  const { offset, length, storageOffset } = entry;
  if (offset !== end) return 'does not start where the entry before ends';
  if (!isCount(length) || length === 0 || length % blockSize !== 0) {
    return 'has a length that is zero or not a multiple of the block size';
  }
  if (length > size - end) return 'reaches past the size';
  if (!isCount(storageOffset) || storageOffset % blockSize !== 0) {
    return 'has a storage offset that is not a multiple of the block size';
  }
  if (storageOffset > MAX_OFFSET - length) return 'has storage that ends above 2^53';
  if (entry.build === ZERO_FILL && storageOffset !== 0) return 'is zero fill with a storage offset';
  if (before !== undefined && continues(before, entry))
    return 'continues the entry before: the two are one run';
  return undefined;
}
