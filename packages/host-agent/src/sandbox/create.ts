/** Makes a sandbox from a template. */
import { told } from '@thaw/api';
import type { CreateSandboxRequest } from '@thaw/api/rpc';
import type { Host } from '../host.ts';
import type { BootOrigin } from './boot.ts';
import { originOf, wanted } from './origin.ts';
import type { Sandbox } from './sandbox.ts';
import { spawn } from './spawn.ts';

/** What may come of a kept boot that can't be restored. */
const BROKEN: ReadonlySet<string> = new Set(['internal', 'timeout', 'agent_error']);

export async function create(host: Host, request: CreateSandboxRequest): Promise<Sandbox> {
  const wish = await wanted(host, request);
  using held = new DisposableStack();
  held.use(wish.template.hold);
  let forget: BootOrigin['forget'];
  try {
    return await spawn(host, wish.record, async () => {
      held.move();
      const origin = await originOf(host, wish);
      ({ forget } = origin);
      const spare = host.spares.take(origin.build.id);
      return { ...origin, head: wish.template.build.id, again: true, ...(spare && { spare }) };
    });
  } catch (error) {
    if (forget !== undefined && BROKEN.has(told(error).code)) await forget();
    throw error;
  } finally {
    host.spares.refill();
  }
}
