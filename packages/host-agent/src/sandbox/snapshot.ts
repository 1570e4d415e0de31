/** Freezes a sandbox into a template. A running one goes on; of a paused one its last build is taken. */
import { ThawError } from '@thaw/api';
import { acquireHead, holdBuild } from '../build/acquire.ts';
import type { Build } from '../build/build.ts';
import { commitHead } from '../build/head.ts';
import { measureBuild } from '../build/measure.ts';
import { isOwnerId } from '../build/paths.ts';
import { releaseBuild } from '../build/release.ts';
import { type Host, newSteps } from '../host.ts';
import type { Steps } from '../os/step.ts';
import { type Template, templateOf } from '../template/facts.ts';
import type { Machine } from './machine.ts';
import { nowSeconds, type Sandbox } from './sandbox.ts';
import { seal } from './seal.ts';

export interface SnapshotRequest {
  sandboxId: string;
  templateId: string;
  name: string;
}

export function snapshot(
  host: Host,
  request: SnapshotRequest,
): Promise<{ sandbox: Sandbox; template: Template }> {
  // Before anything is sealed for it.
  if (!isOwnerId(request.templateId)) throw new ThawError('invalid_request', 'not an id of a template');
  const sandbox = host.registry.get(request.sandboxId);
  return sandbox.exclusive(
    'snapshot',
    async () => {
      const steps = newSteps(host);
      try {
        const { state } = sandbox;
        const build =
          state.status === 'running'
            ? await sealRunning(host, sandbox, state.machine, steps)
            : await lastBuild(host, sandbox);
        const template = await name(host, steps, sandbox, build, request);
        return { sandbox, template };
      } finally {
        sandbox.timings = steps.timings();
      }
    },
    request.templateId,
  );
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

/** Points the template at the build; sandboxes that page from an earlier one keep it. */
async function name(
  host: Host,
  steps: Steps,
  sandbox: Sandbox,
  build: Build,
  { templateId, name }: SnapshotRequest,
): Promise<Template> {
  const { memoryMb, counter } = sandbox.record;
  const facts = { name, type: 'snapshot' as const, memoryMb, counter, createdAt: nowSeconds() };
  const owner = { kind: 'template', id: templateId } as const;
  const before = await commitHead(host.builds, steps, 'template', owner, { build: build.id, facts });
  if (before !== undefined) await releaseBuild(host.builds, steps, 'template', before.build);
  return templateOf(templateId, facts, build);
}
