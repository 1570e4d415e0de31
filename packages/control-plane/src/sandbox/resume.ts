import type { ResumeSandbox, SandboxStatus } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { type Done, requireSandbox } from './sandbox.ts';
import type { SandboxPatch, SandboxRow } from './table.ts';
import { transition } from './transition.ts';
import { untilMoved } from './until-moved.ts';

/** What a sandbox with an absolute end gets at least, if nobody says how long it is wanted. */
const RESUMED_FOR_SEC = 300;

export interface ResumeWish extends ResumeSandbox {
  /** Seconds until its end from now on, whatever it does. */
  ttlSec?: number | undefined;
}

/**
 * From `paused`; from `error` it goes on from the last sealed build and says which. Without memory it boots the disk
 * of that build.
 */
export async function resumeSandbox(
  plane: Plane,
  teamId: string,
  id: string,
  wish: ResumeWish,
  from: readonly SandboxStatus[] = ['paused', 'error'],
): Promise<Done> {
  const row = await requireSandbox(plane, teamId, id);
  const key = wish.memory ? 'resume' : 'resume cold';
  if (row.status === 'resuming' && !plane.verbs.has(id)) {
    const moved = await untilMoved(plane, row);
    if (moved?.status === 'running') return { row: moved, timings: {} };
  }
  return plane.verbs.run(id, key, `sandbox ${id} is resuming`, () => resume(plane, row, from, wish));
}

/** For a command or a file. Only from `paused`: going back to an older state is nothing to be done unasked. */
export async function wake(plane: Plane, row: SandboxRow): Promise<void> {
  const { id } = row;
  await plane.verbs.after(id, 'resume', `sandbox ${id} is resuming`, () =>
    resume(plane, row, ['paused'], { memory: true }),
  );
}

function resume(
  plane: Plane,
  row: SandboxRow,
  from: readonly SandboxStatus[],
  { memory, ttlSec }: ResumeWish,
): Promise<Done> {
  return transition(plane, row, {
    from,
    through: 'resuming',
    admitted: true,
    act: async ({ id, network }) => {
      const { info, buildId } = await plane.host.resume(id, { network, cold: !memory });
      return { info, value: buildId };
    },
    patch: (before, buildId) => ({
      ...clockOf(before, ttlSec),
      rolled_back_to: before.status === 'error' ? buildId : before.rolled_back_to,
    }),
  });
}

/** Both clocks begin anew. */
function clockOf({ end_at, ttl_sec }: SandboxRow, ttlSec: number | undefined): SandboxPatch {
  const now = new Date();
  const begun = { resumed_at: now, last_active_at: now };
  const after = (sec: number) => new Date(now.getTime() + sec * 1000);
  if (ttlSec !== undefined)
    return { ...begun, timeout_sec: 0, ttl_sec: ttl_sec ?? ttlSec, end_at: after(ttlSec) };
  if (end_at === null) return begun;
  const least = after(Math.max(ttl_sec ?? 0, RESUMED_FOR_SEC));
  return { ...begun, end_at: end_at > least ? end_at : least };
}
