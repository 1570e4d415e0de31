import { SnapshotFormatError } from './format-error.ts';
import { continues, type Entry } from './header.ts';

/**
 * Joins neighbours that are one run: same build *and* contiguous storage, or both zero fill.
 * The entries must be sorted and free of gaps and overlaps: joining across a gap would map the wrong bytes.
 */
export function normalise(entries: Iterable<Entry>): Entry[] {
  const joined: Entry[] = [];
  for (const entry of entries) {
    const before = joined.at(-1);
    if (before !== undefined && before.offset + before.length !== entry.offset) {
      throw new SnapshotFormatError(`entries are not contiguous at offset ${entry.offset}`);
    }
    if (before !== undefined && continues(before, entry)) {
      joined[joined.length - 1] = { ...before, length: before.length + entry.length };
    } else {
      joined.push(entry);
    }
  }
  return joined;
}
