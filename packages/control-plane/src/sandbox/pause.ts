import type { Sandbox } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { requireSandbox, toSandbox } from './sandbox.ts';
import { transition } from './transition.ts';

export async function pauseSandbox(plane: Plane, teamId: string, id: string): Promise<Sandbox> {
  const row = await requireSandbox(plane, teamId, id);
  return plane.verbs.run(id, 'pause', `sandbox ${id} is pausing`, async () => {
    const done = await transition(plane, row, {
      from: ['running'],
      through: 'pausing',
      act: async () => ({ info: await plane.host.pause(id), value: undefined }),
      patch: () => ({ rolled_back_to: null }),
    });
    return toSandbox(done.row, done.timings);
  });
}
