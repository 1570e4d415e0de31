import type { ResumeSandbox, Sandbox, SandboxStatus } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { requireSandbox, toSandbox } from './sandbox.ts';
import type { SandboxRow } from './table.ts';
import { transition } from './transition.ts';
import { untilMoved } from './until-moved.ts';

/** What a sandbox with an absolute end gets at least, if that end is over or near. */
const RESUMED_FOR_MS = 300_000;

/**
 * From `paused`; from `error` it goes on from the last sealed build and says which. Without memory it boots the disk
 * of that build.
 */
export async function resumeSandbox(
  plane: Plane,
  teamId: string,
  id: string,
  { memory }: ResumeSandbox,
): Promise<Sandbox> {
  const row = await requireSandbox(plane, teamId, id);
  const key = memory ? 'resume' : 'resume cold';
  if (row.status === 'resuming' && !plane.verbs.has(id)) {
    const moved = await untilMoved(plane, row);
    if (moved?.status === 'running') return toSandbox(moved);
  }
  return plane.verbs.run(id, key, `sandbox ${id} is resuming`, () =>
    resume(plane, row, ['paused', 'error'], !memory),
  );
}

/** For a command or a file. Only from `paused`: going back to an older state is nothing to be done unasked. */
export async function wake(plane: Plane, row: SandboxRow): Promise<void> {
  const { id } = row;
  await plane.verbs.after(id, 'resume', `sandbox ${id} is resuming`, () =>
    resume(plane, row, ['paused'], false),
  );
}

async function resume(
  plane: Plane,
  row: SandboxRow,
  from: readonly SandboxStatus[],
  cold: boolean,
): Promise<Sandbox> {
  const done = await transition(plane, row, {
    from,
    through: 'resuming',
    admitted: true,
    act: async ({ id, network }) => {
      const { info, buildId } = await plane.host.resume(id, { network, cold });
      return { info, value: buildId };
    },
    patch: (before, buildId) => ({
      last_active_at: new Date(),
      end_at: before.end_at && new Date(Math.max(before.end_at.getTime(), Date.now() + RESUMED_FOR_MS)),
      rolled_back_to: before.status === 'error' ? buildId : before.rolled_back_to,
    }),
  });
  return toSandbox(done.row, done.timings);
}
