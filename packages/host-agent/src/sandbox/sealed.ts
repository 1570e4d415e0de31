/** The build that holds a sandbox as it is now: of a running one, which goes on, or the last one of a paused sandbox. */
import { ThawError } from '@thaw/api';
import { acquireHead, holdBuild } from '../build/acquire.ts';
import type { Build } from '../build/build.ts';
import { commitHead, type Head } from '../build/head.ts';
import { measureBuild } from '../build/measure.ts';
import { releaseBuild } from '../build/release.ts';
import type { Host } from '../host.ts';
import type { Steps } from '../os/step.ts';
import type { Machine } from './machine.ts';
import type { SandboxRecord } from './record.ts';
import type { Sandbox } from './sandbox.ts';
import { type Sealed, type SealOptions, seal } from './seal.ts';

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
  if (build.memory === null)
    throw new ThawError('invalid_state', 'the sandbox was paused without its memory: resume it first');
  return build;
}

/**
 * Seals a VM that goes on, and lays it over the build. When the VM stays on what it stood on, `onStay` is told the head
 * from before the seal.
 */
export async function sealBelow(
  host: Host,
  steps: Steps,
  record: SandboxRecord,
  machine: Machine,
  options: Omit<SealOptions, 'goOn'>,
  onStay: (before: Head | undefined) => Promise<void>,
): Promise<Sealed> {
  const { verb } = options;
  const { build, before } = await seal(host, steps, record, machine, { ...options, goOn: true });
  try {
    await machine.rebase(steps, verb, build, holdBuild(host.builds, build), () => onStay(before));
  } catch (error) {
    await releaseBuild(host.builds, steps, verb, build.id);
    throw error;
  }
  return { build, before };
}

async function sealRunning(host: Host, sandbox: Sandbox, machine: Machine, steps: Steps): Promise<Build> {
  const thawed = Promise.withResolvers<void>();
  sandbox.state = { status: 'snapshotting', machine, thawed: thawed.promise };
  try {
    const options = { verb: 'snapshot', onThawed: thawed.resolve } as const;
    // A VM that stays writes to the layer that is the build's disk: nothing may start from that build then.
    const owner = { kind: 'sandbox', id: sandbox.id } as const;
    const onStay = async (head: Head | undefined) =>
      void (head && (await commitHead(host.builds, steps, 'snapshot', owner, head)));
    const { build, before } = await sealBelow(host, steps, sandbox.record, machine, options, onStay);
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
