import { ZERO_FILL } from './build-id.ts';
import type { Entry } from './header.ts';

/**
 * Lays `upper` over `lower`: where both have an answer the upper one wins. `lower` covers its range without gaps; `upper`
 * is sorted, free of overlaps and within that range. The result is sorted and gapless, not yet joined.
 */
export function* merge(lower: Iterable<Entry>, upper: Iterable<Entry>): Generator<Entry> {
  const above = upper[Symbol.iterator]();
  let over = above.next();
  for (const entry of lower) {
    const end = entry.offset + entry.length;
    let at = entry.offset;
    while (!over.done && over.value.offset < end) {
      const cover = over.value;
      if (cover.offset > at) yield cut(entry, at, cover.offset);
      if (cover.offset >= entry.offset) yield cover;
      at = Math.max(at, cover.offset + cover.length);
      if (at > end) break;
      over = above.next();
    }
    if (at < end) yield cut(entry, at, end);
  }
}

/** The part [from, to) of an entry; what it maps to moves along. */
export function cut(entry: Entry, from: number, to: number): Entry {
  const storageOffset = entry.build === ZERO_FILL ? 0 : entry.storageOffset + (from - entry.offset);
  return { offset: from, length: to - from, build: entry.build, storageOffset };
}
