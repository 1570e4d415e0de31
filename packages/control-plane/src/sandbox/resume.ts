import type { Sandbox } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { requireSandbox, toSandbox } from './sandbox.ts';
import { transition } from './transition.ts';

/** From `paused`; from `error` it goes on from the last sealed build and says which. */
export async function resumeSandbox(plane: Plane, teamId: string, id: string): Promise<Sandbox> {
  const row = await requireSandbox(plane, teamId, id);
  return plane.verbs.run(id, 'resume', `sandbox ${id} is resuming`, async () => {
    const done = await transition(plane, row, {
      from: ['paused', 'error'],
      through: 'resuming',
      admitted: true,
      act: async () => ({ info: await plane.host.resume(id), value: undefined }),
      patch: (before) => ({
        last_active_at: new Date(),
        rolled_back_to: before.status === 'error' ? before.build_id : before.rolled_back_to,
      }),
    });
    return toSandbox(done.row, done.timings);
  });
}
