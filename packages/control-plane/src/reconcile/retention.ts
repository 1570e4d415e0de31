/** Forgets what was kept long enough. */
import { pruneBuilds } from '../build/table.ts';
import type { Retention } from '../config.ts';
import type { Plane } from '../plane.ts';
import { destroyExpired } from '../sandbox/destroy.ts';
import { listSince, purgeStopped } from '../sandbox/table.ts';

/** One round. What can't be destroyed now is tried again in the next one. */
export async function retain(plane: Plane, kept: Retention): Promise<void> {
  if (kept.deletePausedAfterSec > 0) {
    for (const row of await listSince(plane.db, plane.hostId, 'paused', kept.deletePausedAfterSec)) {
      if (plane.verbs.has(row.id)) continue;
      try {
        if (!(await destroyExpired(plane, row))) continue;
        plane.log.info({ sandbox: row.id, paused: row.status_since }, 'a sandbox was paused for too long');
      } catch (error) {
        plane.log.warn({ err: error, sandbox: row.id }, 'a sandbox paused for too long is still there');
      }
    }
  }
  const purged = await purgeStopped(plane.db, plane.hostId, kept.purgeStoppedAfterSec);
  if (purged === 0) return;
  await pruneBuilds(plane.db);
  plane.log.info({ sandboxes: purged }, 'forgot sandboxes that were destroyed long ago');
}
