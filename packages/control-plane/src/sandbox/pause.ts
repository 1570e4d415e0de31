import type { Sandbox } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { requireSandbox, toSandbox } from './sandbox.ts';
import type { SandboxRow } from './table.ts';
import { transition } from './transition.ts';
import { untilMoved } from './until-moved.ts';

export async function pauseSandbox(plane: Plane, teamId: string, id: string): Promise<Sandbox> {
  const row = await requireSandbox(plane, teamId, id);
  const moved = row.status === 'pausing' && !plane.verbs.has(id) ? await untilMoved(plane, row) : undefined;
  return moved?.status === 'paused' ? toSandbox(moved) : pause(plane, row);
}

/** At the end of its time: not if it changed since `row` was read, nor if it is used again. */
export async function pauseExpired(plane: Plane, row: SandboxRow, still: () => boolean): Promise<void> {
  await pause(plane, row, { still, revision: row.revision });
}

function pause(
  plane: Plane,
  row: SandboxRow,
  guard: { still?: () => boolean; revision?: number } = {},
): Promise<Sandbox> {
  const { id } = row;
  return plane.verbs.run(id, 'pause', `sandbox ${id} is pausing`, async () => {
    const done = await transition(plane, row, {
      from: ['running'],
      through: 'pausing',
      ...guard,
      act: async () => ({ info: await plane.host.pause(id), value: undefined }),
      patch: () => ({ rolled_back_to: null }),
    });
    return toSandbox(done.row, done.timings);
  });
}
