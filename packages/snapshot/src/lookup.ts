import { type BuildId, ZERO_FILL } from './build-id.ts';
import { SnapshotFormatError } from './format-error.ts';
import type { Header } from './header.ts';

/** Where the bytes from an offset on are found. */
export interface Found {
  /** `ZERO_FILL` if the bytes are zero and stored nowhere. */
  readonly build: BuildId;
  /** Position in the build's file, in bytes; null for zero fill. */
  readonly storageOffset: number | null;
  /** Bytes from the offset to the end of the run. */
  readonly remaining: number;
}

/** Answers for any byte offset in [0, size) by binary search. Throws `SnapshotFormatError` beyond. */
export function lookup(header: Header, offset: number): Found {
  if (!Number.isInteger(offset) || offset < 0 || offset >= header.size) {
    throw new SnapshotFormatError(`offset ${offset} is outside [0, ${header.size})`);
  }
  let low = 0;
  let high = header.entries.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (header.entries[middle]!.offset <= offset) low = middle;
    else high = middle - 1;
  }
  const { build, storageOffset, offset: start, length } = header.entries[low]!;
  const shift = offset - start;
  return {
    build,
    storageOffset: build === ZERO_FILL ? null : storageOffset + shift,
    remaining: length - shift,
  };
}
