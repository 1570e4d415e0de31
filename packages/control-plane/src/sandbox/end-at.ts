/** The absolute end of a sandbox, which no use of it moves. */
import { ThawError } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { endExpired } from './clock.ts';
import { inSec } from './connect.ts';
import { requireSandbox } from './sandbox.ts';
import { moveSandbox, notBefore, type SandboxPatch } from './table.ts';
import { untilMoved } from './until-moved.ts';

/**
 * Ends a running sandbox in `sec` seconds from now, or, with `onlyLater`, not earlier than that; 0: now, and it is over when
 * this answers. Until then it ended by being idle, maybe: no more, but with `onlyLater` that stays so. Throws `not_found`
 * unless it runs.
 */
export async function setEnd(
  plane: Plane,
  teamId: string,
  id: string,
  sec: number,
  { onlyLater = false } = {},
): Promise<void> {
  let row = await requireSandbox(plane, teamId, id);
  if (row.status === 'resuming') row = (await untilMoved(plane, row)) ?? row;
  if (onlyLater && row.end_at === null) return plane.activity.touch(id);
  const endAt = inSec(sec);
  const patch: SandboxPatch = onlyLater
    ? { end_at: notBefore(endAt) }
    : { end_at: endAt, timeout_sec: 0, ttl_sec: row.ttl_sec ?? Math.max(sec, 1), last_active_at: new Date() };
  const moved = await moveSandbox(plane.db, id, ['running', 'snapshotting'], patch);
  if (!moved) throw new ThawError('not_found', `sandbox ${id} is not running`);
  if (moved.status !== 'running' || sec > 0 || onlyLater) return;
  await endExpired(plane, moved).catch((error) => {
    // Another verb was quicker: the clock ends it after that.
    if (!(error instanceof ThawError && error.kind === 'invalid_state')) throw error;
  });
}
