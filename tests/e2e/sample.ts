import { createHash } from 'node:crypto';

/** `make crash` takes everything. */
export const TAKE_ALL = process.env.THAW_CRASH_POINTS === 'all';

/** `count` of the items, chosen by the seed and their names; in the order they came in. */
export function sample<T>(
  items: readonly T[],
  count: number,
  seed: string,
  nameOf: (item: T) => string = String,
): T[] {
  const rank = (item: T) =>
    createHash('sha256')
      .update(`${seed}/${nameOf(item)}`)
      .digest('hex');
  const chosen = new Set(items.toSorted((a, b) => (rank(a) < rank(b) ? -1 : 1)).slice(0, count));
  return items.filter((item) => chosen.has(item));
}
