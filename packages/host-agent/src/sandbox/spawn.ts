/**
 * A new sandbox from a build: booted from a base image, or restored from a snapshot under an identity of its own. When a
 * step fails, nothing of it is left.
 */
import { randomBytes } from 'node:crypto';
import type { CreateSandboxRequest } from '@thaw/api/rpc';
import type { BuildId } from '@thaw/snapshot';
import { commitHead, removeHead } from '../build/head.ts';
import { measureBuild } from '../build/measure.ts';
import { releaseBuild } from '../build/release.ts';
import { type Host, newSteps } from '../host.ts';
import { checkedEgress, OPEN_EGRESS } from '../network/egress.ts';
import { takePlace } from './how.ts';
import { removeSandboxFiles, type SandboxRecord, writeRecord } from './record.ts';
import { checkRoom } from './room.ts';
import { nowSeconds, Sandbox } from './sandbox.ts';
import type { Spare } from './spare.ts';
import { type StartFrom, startMachine } from './start.ts';
import { watch } from './watch.ts';

/** What a sandbox starts from. */
export interface Origin extends StartFrom {
  /** One that has started from `build`. */
  spare?: Spare;
  /** What the sandbox's head names until its first seal, if not `build`. */
  head?: BuildId;
  /** Others are likely to start from `build`, too. */
  again?: boolean;
}

/** The host knows the sandbox from now on; what it starts from may still have to be made. */
export async function spawn(
  host: Host,
  wanted: SandboxRecord,
  origin: () => Promise<Origin>,
): Promise<Sandbox> {
  const sandbox = new Sandbox(wanted, { status: 'pending' });
  host.registry.add(sandbox);
  return await sandbox.exclusive('create', async () => {
    const steps = newSteps(host);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => host.registry.remove(sandbox));
    const from = await origin();
    using held = new DisposableStack();
    held.use(from.hold);
    const { spare, head = from.build.id } = from;
    await using unused = new AsyncDisposableStack();
    unused.use(spare);
    await checkRoom(host, wanted.memoryMb);
    const place =
      spare === undefined ? await takePlace(host, steps, 'create', { record: wanted, ...from }) : undefined;
    unused.use(place);
    const vm = spare?.id ?? place?.name;
    const record = vm === undefined ? wanted : { ...wanted, vm };
    sandbox.record = record;
    undo.defer(() => releaseBuild(host.builds, steps, 'create', head).then(() => {}));
    undo.defer(() => removeSandboxFiles(host.config, record.id, steps, 'create:remove-files'));
    const owner = { kind: 'sandbox', id: record.id } as const;
    undo.defer(() => removeHead(host.builds, steps, 'create', owner));
    await writeRecord(host.config, record, steps, 'create:write-record');
    await commitHead(host.builds, steps, 'create', owner, { build: head, facts: {} });
    if (spare === undefined) held.move();
    unused.move();
    const machine =
      spare === undefined
        ? await startMachine(host, steps, 'create', record, { ...from, place })
        : await spare.become(steps, record);
    sandbox.state = { status: 'running', machine };
    if (from.build.memory !== null && head === from.build.id) sandbox.build = await measureBuild(from.build);
    sandbox.timings = steps.timings();
    watch(host, sandbox, machine);
    undo.move();
    return sandbox;
  });
}

export interface Size {
  vcpus: number;
  memoryMb: number;
  diskMb: number;
}

/** What a caller wants of a new sandbox. */
export type Wish = Pick<
  CreateSandboxRequest,
  'sandboxId' | 'template' | 'vcpus' | 'memoryMb' | 'diskMb' | 'timeoutSec' | 'env' | 'network'
> &
  Partial<Pick<CreateSandboxRequest, 'open' | 'defaultUser' | 'defaultWorkdir'>>;

/** With an identity that no other sandbox has. `counter`: the last that the frozen guest knows. */
export function newRecord(request: Wish, { vcpus, memoryMb, diskMb }: Size, counter: number): SandboxRecord {
  return {
    id: request.sandboxId,
    template: request.template,
    vcpus,
    memoryMb,
    diskMb,
    timeoutSec: request.timeoutSec,
    env: request.env,
    egress: request.network === undefined ? OPEN_EGRESS : checkedEgress(request.network),
    accessToken: request.open ? '' : randomBytes(24).toString('hex'),
    defaultUser: request.defaultUser || 'root',
    defaultWorkdir: request.defaultWorkdir || '/root',
    machineId: randomBytes(16).toString('hex'),
    counter: Math.max(Date.now(), counter + 1),
    createdAt: nowSeconds(),
    lastActiveAt: nowSeconds(),
    started: true,
  };
}
