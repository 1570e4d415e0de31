/**
 * Starts a paused sandbox again from its last build; one in `error` goes back to it. Cold, or if the build is no more than a
 * disk, it boots that.
 */
import { mkdir, rm } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import type { Machine as MachineFacts } from '@thaw/snapshot';
import { acquireHead } from '../build/acquire.ts';
import type { Build } from '../build/build.ts';
import { measureBuild } from '../build/measure.ts';
import { type Host, newSteps } from '../host.ts';
import type { Egress } from '../network/egress.ts';
import type { Steps } from '../os/step.ts';
import { kitFor } from './compatible.ts';
import { takePlace } from './how.ts';
import type { Machine } from './machine.ts';
import { SandboxPaths } from './paths.ts';
import { isOwn, writeRecord } from './record.ts';
import { checkRoom } from './room.ts';
import type { Sandbox } from './sandbox.ts';
import { startMachine } from './start.ts';
import { watch } from './watch.ts';

export interface ResumeWish {
  /** What its guest may reach from now on; as before without it. */
  egress?: Egress | undefined;
  cold?: boolean;
}

export function resume(host: Host, id: string, wish: ResumeWish = {}): Promise<Sandbox> {
  const sandbox = host.registry.get(id);
  const work = async () => {
    const before = sandbox.state;
    if (before.status !== 'paused' && before.status !== 'error') throw sandbox.refused();
    const steps = newSteps(host);
    sandbox.state = { status: 'resuming' };
    try {
      await checkRoom(host, sandbox.record.memoryMb);
      const reason = before.status === 'error' ? before.reason : undefined;
      const machine = await restore(host, sandbox, steps, wish, reason);
      sandbox.state = { status: 'running', machine };
      watch(host, sandbox, machine);
    } catch (error) {
      sandbox.state = before;
      throw error;
    } finally {
      sandbox.timings = steps.timings();
    }
    return sandbox;
  };
  return sandbox.exclusive('resume', work, wish.cold ? 'cold' : '');
}

/** `reason`: why the sandbox is in `error`, if it is. When this throws, it is as it was before. */
async function restore(
  host: Host,
  sandbox: Sandbox,
  steps: Steps,
  { egress = sandbox.record.egress, cold = false }: ResumeWish,
  reason: string | undefined,
): Promise<Machine> {
  const acquired = await steps.run('resume:read-build', () =>
    acquireHead(host.builds, { kind: 'sandbox', id: sandbox.id }),
  );
  using held = new DisposableStack();
  held.use(acquired.hold);
  const { build, head } = acquired;
  const isItsOwn = isOwn(build, head.facts);
  const boots = cold || (build.memory === null && isItsOwn);
  const from = boots ? diskOf(build) : build;
  if (!boots) await kitFor(host, machineOf(build));
  // It only tells: the start does not wait for it.
  const measured = isItsOwn ? measureBuild(build).catch(() => undefined) : undefined;
  // Until the VM runs, the record keeps what a start that fails or is cut off goes back to.
  const { vm: _vm, ...known } = sandbox.record;
  const next = {
    ...known,
    egress,
    counter: Math.max(Date.now(), sandbox.record.counter + 1),
    started: true,
  };
  await using unused = new AsyncDisposableStack();
  const place = unused.use(await takePlace(host, steps, 'resume', { record: next, build: from }));
  const paths = new SandboxPaths(host.config, sandbox.id, place?.name);
  try {
    await mkdir(paths.run, { recursive: true, mode: 0o700 });
    const placed = { ...next, ...(place && { vm: place.name }) };
    await writeRecord(host.config, placed, steps, 'resume:write-record');
    held.move();
    unused.move();
    const { errorReason: _, ...record } = placed;
    const machine = await startMachine(host, steps, 'resume', record, {
      ...acquired,
      build: from,
      place,
    });
    sandbox.record = record;
    sandbox.build = (await measured) ?? sandbox.build;
    return machine;
  } catch (error) {
    sandbox.record = { ...next, started: false, errorReason: reason };
    await rm(paths.run, { recursive: true, force: true });
    await writeRecord(host.config, sandbox.record, steps, 'resume:write-record').catch((cause) =>
      host.log.error({ sandbox: sandbox.id, err: cause }, 'record not written'),
    );
    throw error;
  }
}

function machineOf(build: Build): MachineFacts {
  if (build.manifest.machine !== null) return build.manifest.machine;
  throw new ThawError(
    'invalid_state',
    'nothing of this sandbox was sealed: there is no state to resume, only a disk to boot without memory',
  );
}

/** The build as one that was never run: its disk boots with the kernel of today, and the next seal's memory has no parent. */
function diskOf(build: Build): Build {
  return {
    ...build,
    memory: null,
    manifest: { ...build.manifest, machine: null, memory: null, vmstate: null },
  };
}
