import type { PauseSandbox } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { type Done, requireSandbox } from './sandbox.ts';
import type { SandboxRow } from './table.ts';
import { transition } from './transition.ts';
import { untilMoved } from './until-moved.ts';

export interface PauseWish extends PauseSandbox {
  /** Throws `unavailable` if the guest does not answer. */
  healthy?: boolean;
  /** Waits for another verb under way; without it that is `invalid_state`. */
  wait?: boolean;
}

/** Throws `invalid_state` unless it runs. The same pause under way is joined. */
export async function pauseSandbox(plane: Plane, teamId: string, id: string, wish: PauseWish): Promise<Done> {
  const row = await requireSandbox(plane, teamId, id);
  const moved = row.status === 'pausing' && !plane.verbs.has(id) ? await untilMoved(plane, row) : undefined;
  return moved?.status === 'paused' ? { row: moved, timings: {} } : pause(plane, row, wish);
}

/** At the end of its time: not if it changed since `row` was read, nor if it is used again. */
export async function pauseExpired(
  plane: Plane,
  row: SandboxRow,
  still: () => boolean = () => true,
): Promise<void> {
  await pause(plane, row, { memory: row.pause_memory }, { still, revision: row.revision });
}

function pause(
  plane: Plane,
  row: SandboxRow,
  { memory, healthy = false, wait = false }: PauseWish,
  guard: { still?: () => boolean; revision?: number } = {},
): Promise<Done> {
  const { id } = row;
  const work = () =>
    transition(plane, row, {
      from: ['running'],
      through: 'pausing',
      ...guard,
      act: async () => ({
        info: await plane.host.pause(id, { diskOnly: !memory, healthy }),
        value: undefined,
      }),
      patch: () => ({ rolled_back_to: null }),
    });
  const verb = [id, memory ? 'pause' : 'pause disk', `sandbox ${id} is pausing`, work] as const;
  return wait ? plane.verbs.after(...verb) : plane.verbs.run(...verb);
}
