import { SnapshotFormatError } from './format-error.ts';

/** The largest size, offset or generation in a file: what a double holds exactly. */
export const MAX_OFFSET = 2 ** 53;

const HIGH_MAX = MAX_OFFSET / 2 ** 32;

/** A little-endian u64 as a number; above 2^53 it is refused, never rounded. */
export function readU64(view: DataView, at: number, what: string): number {
  const low = view.getUint32(at, true);
  const high = view.getUint32(at + 4, true);
  if (high > HIGH_MAX || (high === HIGH_MAX && low > 0))
    throw new SnapshotFormatError(`${what} is above 2^53`);
  return high * 2 ** 32 + low;
}

export function writeU64(view: DataView, at: number, value: number, what: string): void {
  if (!isCount(value)) throw new SnapshotFormatError(`${what} is not a whole number up to 2^53`);
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

/** True for a whole number from 0 to 2^53. */
export function isCount(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= MAX_OFFSET;
}

export function isPowerOfTwo(value: number): boolean {
  return isCount(value) && value > 0 && Number.isInteger(Math.log2(value));
}
