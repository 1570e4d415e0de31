/** Keeps the audit log bounded. */
import type { AuditBounds } from '../config.ts';
import type { Plane } from '../plane.ts';
import { purgeLines } from './table.ts';

const EVERY_MS = 600_000;

/** At once and every ten minutes, until the returned function is called, which waits for the round under way. */
export function keepAuditBounded(
  plane: Plane,
  { purgeAfterSec, linesMax }: AuditBounds,
): () => Promise<void> {
  let round = Promise.resolve();
  const begin = () => {
    round = purgeLines(plane.db, purgeAfterSec, linesMax).catch((error: unknown) =>
      plane.log.warn({ err: error }, 'old lines of the audit log are still there'),
    );
  };
  begin();
  const timer = setInterval(begin, EVERY_MS);
  return async () => {
    clearInterval(timer);
    await round;
  };
}
