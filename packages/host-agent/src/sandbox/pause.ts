/** Writes a running sandbox into a build and gives back everything it occupied. */
import { measureBuild } from '../build/measure.ts';
import { releaseBuild } from '../build/release.ts';
import { type Host, newSteps } from '../host.ts';
import { writeRecord } from './record.ts';
import type { Sandbox } from './sandbox.ts';
import { seal } from './seal.ts';

const DRAIN_MS = 2_000;

export function pause(host: Host, id: string): Promise<Sandbox> {
  const sandbox = host.registry.get(id);
  return sandbox.exclusive('pause', async () => {
    const machine = sandbox.running();
    const steps = newSteps(host);
    sandbox.state = { status: 'pausing', machine };
    try {
      await steps.run('pause:drain', () => sandbox.drain(DRAIN_MS));
      const { build, before } = await seal(host, steps, sandbox.record, machine, {
        verb: 'pause',
        goOn: false,
      });
      sandbox.build = await measureBuild(build);
      // Sealed: from here on the sandbox is paused, whatever happens.
      sandbox.state = { status: 'paused' };
      sandbox.record = { ...sandbox.record, started: false };
      sandbox.endCalls();
      await settle(host, sandbox, 'pause:write-record', () =>
        writeRecord(host.config, sandbox.record, steps, 'pause:write-record'),
      );
      // In any case it is ended: it must not run beside the VM that a resume starts.
      await settle(host, sandbox, 'pause:end', () =>
        steps.run('pause:end', () => machine.end()).finally(() => machine.end()),
      );
      if (before !== undefined) {
        await settle(host, sandbox, 'pause:release', async () => {
          await releaseBuild(host.builds, steps, 'pause', before.build);
        });
      }
    } catch (error) {
      sandbox.state = machine.isEnding
        ? { status: 'error', reason: 'the VM was lost while pausing' }
        : { status: 'running', machine };
      throw error;
    } finally {
      sandbox.timings = steps.timings();
      host.places.refill();
    }
    return sandbox;
  });
}

/** What follows a seal can't undo it: a failure is logged and what is left is swept at the next start. */
async function settle(host: Host, sandbox: Sandbox, label: string, work: () => Promise<void>): Promise<void> {
  await work().catch((error) =>
    host.log.error({ sandbox: sandbox.id, step: label, err: error }, 'step failed after the seal'),
  );
}
