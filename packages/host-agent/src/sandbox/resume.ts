/** Starts a paused sandbox again from its last build; one in `error` goes back to it. */
import { ThawError } from '@thaw/api';
import { acquireHead } from '../build/acquire.ts';
import { measureBuild } from '../build/measure.ts';
import { type Host, newSteps } from '../host.ts';
import { checkMachine } from './compatible.ts';
import { Machine } from './machine.ts';
import { writeRecord } from './record.ts';
import type { Sandbox } from './sandbox.ts';
import { watch } from './watch.ts';

export function resume(host: Host, id: string): Promise<Sandbox> {
  const sandbox = host.registry.get(id);
  return sandbox.exclusive('resume', async () => {
    const before = sandbox.state;
    if (before.status !== 'paused' && before.status !== 'error') throw sandbox.refused();
    const steps = newSteps(host);
    sandbox.state = { status: 'resuming' };
    try {
      const machine = await restore(host, sandbox, steps);
      sandbox.state = { status: 'running', machine };
      watch(host, sandbox, machine);
    } catch (error) {
      sandbox.state = before;
      throw error;
    } finally {
      sandbox.timings = steps.timings();
    }
    return sandbox;
  });
}

async function restore(host: Host, sandbox: Sandbox, steps: ReturnType<typeof newSteps>): Promise<Machine> {
  const acquired = await steps.run('resume:read-build', () =>
    acquireHead(host.builds, { kind: 'sandbox', id: sandbox.id }),
  );
  using held = new DisposableStack();
  held.use(acquired.hold);
  const { build } = acquired;
  if (build.manifest.machine === null) {
    throw new ThawError('invalid_state', 'nothing of this sandbox was sealed: there is no state to resume');
  }
  checkMachine(host, build.manifest.machine);
  const { errorReason: _, ...record } = sandbox.record;
  const next = { ...record, counter: Math.max(Date.now(), record.counter + 1), started: true };
  await writeRecord(host.config, next, steps, 'resume:write-record');
  sandbox.record = next;
  sandbox.build = await measureBuild(build);
  held.move();
  return await Machine.start(host, steps, 'resume', next, acquired);
}
