/**
 * Ends sandboxes whose time is over. Everything is derived from rows, so that it survives this process: `timeout_sec`
 * counts from the last use, `end_at` is a moment that no use moves. A row has one of them.
 */
import { ThawError } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { destroyExpired } from './destroy.ts';
import { pauseExpired } from './pause.ts';
import { listExpired, type SandboxRow } from './table.ts';

/** Who was cut off by a restart has this many rounds to come back before idle time is counted. */
const ROUNDS_OF_GRACE = 5;
/** One that could not be ended is tried again after this time. */
const RETRY_MS = 30_000;

/** Looks every `everyMs` until the returned function is called; what it started ends as verbs do. */
export function startClock(plane: Plane, everyMs: number): () => Promise<void> {
  const retryAt = new Map<string, number>();
  let looking: Promise<void> | undefined;
  let round = 0;
  const look = async () => {
    round += 1;
    if (round <= ROUNDS_OF_GRACE) return;
    try {
      await endAllExpired(plane, retryAt);
    } catch (error) {
      plane.log.warn({ err: error }, 'the clock: the database cannot be reached');
    }
  };
  const timer = setInterval(() => {
    looking ??= look().finally(() => {
      looking = undefined;
    });
  }, everyMs);
  return async () => {
    clearInterval(timer);
    await looking;
  };
}

async function endAllExpired(plane: Plane, retryAt: Map<string, number>): Promise<void> {
  const now = performance.now();
  for (const [id, at] of retryAt) if (at <= now) retryAt.delete(id);
  // The database judges by what was written: that must be all there is.
  await plane.activity.flush();
  for (const row of await listExpired(plane.db, plane.hostId)) {
    if (plane.verbs.has(row.id) || retryAt.has(row.id) || !isOver(plane, row)) continue;
    void endExpired(plane, row).catch((error) => {
      if (error instanceof ThawError && error.kind === 'invalid_state') return;
      retryAt.set(row.id, performance.now() + RETRY_MS);
      plane.log.warn({ err: error, sandbox: row.id }, 'a sandbox could not be ended at the end of its time');
    });
  }
}

/** Use moves the idle clock only. */
function isOver(plane: Plane, row: SandboxRow): boolean {
  return row.end_at !== null || !plane.activity.has(row.id);
}

/** Destroys or pauses it, unless its row changed since it was read. */
export async function endExpired(plane: Plane, row: SandboxRow): Promise<void> {
  const still = () => isOver(plane, row);
  plane.log.info({ sandbox: row.id, verb: row.on_timeout }, 'the time of a sandbox is over');
  switch (row.on_timeout) {
    case 'kill':
      await destroyExpired(plane, row, still);
      return;
    case 'pause':
      return pauseExpired(plane, row, still);
  }
}
