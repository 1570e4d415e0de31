import { randomBytes } from 'node:crypto';

const COUNTER_MAX = 36 ** 4;
let counter = 0;

/** Sorts by time, also within a millisecond of this process. `prefix` says of what it is the id. */
export function newSortedId(prefix: string): string {
  counter = (counter + 1) % COUNTER_MAX;
  const time = Date.now().toString(36).padStart(9, '0');
  const turn = counter.toString(36).padStart(4, '0');
  return `${prefix}${time}${turn}${randomBytes(5).toString('hex')}`;
}
