/** Writes a running sandbox into a build, or its disk alone, and gives back everything it occupied. */
import { ThawError } from '@thaw/api';
import { measureBuild } from '../build/measure.ts';
import { releaseBuild } from '../build/release.ts';
import { answered } from '../guest/silence.ts';
import { type Host, newSteps } from '../host.ts';
import type { Machine } from './machine.ts';
import { writeRecord } from './record.ts';
import type { Sandbox } from './sandbox.ts';
import { seal } from './seal.ts';

const DRAIN_MS = 2_000;
const HEALTH_TIMEOUT_MS = 5_000;

export interface PauseWish {
  /** Nothing that runs is kept. */
  diskOnly?: boolean;
  /** Throws `unavailable`, with nothing done, if the guest agent does not answer. */
  healthy?: boolean;
}

export function pause(
  host: Host,
  id: string,
  { diskOnly = false, healthy }: PauseWish = {},
): Promise<Sandbox> {
  const sandbox = host.registry.get(id);
  const work = async () => {
    const machine = sandbox.running();
    const steps = newSteps(host);
    if (healthy) await checkGuest(machine);
    sandbox.state = { status: 'pausing', machine };
    try {
      await steps.run('pause:drain', () => sandbox.drain(DRAIN_MS));
      const { build, before } = await seal(host, steps, sandbox.record, machine, {
        verb: 'pause',
        goOn: false,
        diskOnly,
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
  };
  return sandbox.exclusive('pause', work, diskOnly ? 'disk' : '');
}

async function checkGuest({ guest }: Machine): Promise<void> {
  const patience = { ...guest.patience, answerMs: HEALTH_TIMEOUT_MS };
  await answered(patience, (options) => guest.processes.list({}, options)).catch((cause) => {
    throw new ThawError('unavailable', 'the guest agent does not answer', { cause });
  });
}

/** What follows a seal can't undo it: a failure is logged and what is left is swept at the next start. */
async function settle(host: Host, sandbox: Sandbox, label: string, work: () => Promise<void>): Promise<void> {
  await work().catch((error) =>
    host.log.error({ sandbox: sandbox.id, step: label, err: error }, 'step failed after the seal'),
  );
}
