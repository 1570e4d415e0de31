/** The build that holds a sandbox as it is now: of a running one, which goes on, or the last one of a paused sandbox. */
import { ThawError } from '@thaw/api';
import { acquireHead, holdBuild } from '../build/acquire.ts';
import type { Build } from '../build/build.ts';
import { commitHead } from '../build/head.ts';
import { measureBuild } from '../build/measure.ts';
import { releaseBuild } from '../build/release.ts';
import type { Host } from '../host.ts';
import type { Steps } from '../os/step.ts';
import type { Machine } from './machine.ts';
import type { Sandbox } from './sandbox.ts';
import { seal } from './seal.ts';

/** To be called by the sandbox's one writer. */
export async function sealed(host: Host, sandbox: Sandbox, steps: Steps): Promise<Build> {
  const { state } = sandbox;
  return state.status === 'running'
    ? await sealRunning(host, sandbox, state.machine, steps)
    : await lastBuild(host, sandbox);
}

async function lastBuild(host: Host, sandbox: Sandbox): Promise<Build> {
  if (sandbox.state.status !== 'paused') throw sandbox.refused();
  const { build, hold } = await acquireHead(host.builds, { kind: 'sandbox', id: sandbox.id });
  hold[Symbol.dispose]();
  if (build.memory === null) throw new ThawError('invalid_state', 'nothing of this sandbox was sealed yet');
  return build;
}

async function sealRunning(host: Host, sandbox: Sandbox, machine: Machine, steps: Steps): Promise<Build> {
  const thawed = Promise.withResolvers<void>();
  sandbox.state = { status: 'snapshotting', machine, thawed: thawed.promise };
  try {
    const { build, before } = await seal(host, steps, sandbox.record, machine, {
      verb: 'snapshot',
      goOn: true,
      onThawed: thawed.resolve,
    });
    // A VM that stays writes to the layer that is the build's disk: nothing may start from that build then.
    const owner = { kind: 'sandbox', id: sandbox.id } as const;
    const onStay = async () =>
      void (before && (await commitHead(host.builds, steps, 'snapshot', owner, before)));
    try {
      await machine.rebase(steps, 'snapshot', build, holdBuild(host.builds, build), onStay);
    } catch (error) {
      await releaseBuild(host.builds, steps, 'snapshot', build.id);
      throw error;
    }
    sandbox.build = await measureBuild(build);
    if (before !== undefined) await releaseBuild(host.builds, steps, 'snapshot', before.build);
    return build;
  } finally {
    thawed.resolve();
    sandbox.state = machine.isEnding
      ? { status: 'error', reason: 'the VM was lost during a snapshot' }
      : { status: 'running', machine };
  }
}
