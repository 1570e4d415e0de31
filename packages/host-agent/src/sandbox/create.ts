/**
 * Makes a sandbox from a template: booted from a base image, or restored from a snapshot under an identity of its
 * own. When a step fails, nothing of the sandbox is left.
 */
import { randomBytes } from 'node:crypto';
import { SANDBOX_ID, ThawError } from '@thaw/api';
import type { CreateSandboxRequest } from '@thaw/api/rpc';
import { type Acquired, acquireHead } from '../build/acquire.ts';
import { commitHead, removeHead } from '../build/head.ts';
import { measureBuild } from '../build/measure.ts';
import { releaseBuild } from '../build/release.ts';
import { type Host, newSteps } from '../host.ts';
import { checkedEgress, OPEN_EGRESS } from '../network/egress.ts';
import { templateFacts } from '../template/facts.ts';
import { kitFor } from './compatible.ts';
import { removeSandboxFiles, type SandboxRecord, writeRecord } from './record.ts';
import { checkRoom } from './room.ts';
import { nowSeconds, Sandbox } from './sandbox.ts';
import { startMachine } from './start.ts';
import { watch } from './watch.ts';

const DEFAULTS = { vcpus: 1, memoryMb: 512, diskMb: 4096 } as const;
const DISK_MB_MAX = 65536;
const MEMORY_MB_MIN = 128;
const MIB = 2 ** 20;

export async function create(host: Host, request: CreateSandboxRequest): Promise<Sandbox> {
  if (!SANDBOX_ID.test(request.sandboxId)) throw new ThawError('invalid_request', 'not an id of a sandbox');
  const acquired = await acquireTemplate(host, request.template);
  using held = new DisposableStack();
  held.use(acquired.hold);
  const record = await newRecord(host, request, acquired);
  const sandbox = new Sandbox(record, { status: 'pending' });
  host.registry.add(sandbox);
  return await sandbox.exclusive('create', async () => {
    const steps = newSteps(host);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => host.registry.remove(sandbox));
    await checkRoom(host, record.memoryMb);
    undo.defer(() => releaseBuild(host.builds, steps, 'create', acquired.build.id).then(() => {}));
    undo.defer(() => removeSandboxFiles(host.config, record.id, steps, 'create:remove-files'));
    const owner = { kind: 'sandbox', id: record.id } as const;
    undo.defer(() => removeHead(host.builds, steps, 'create', owner));
    await writeRecord(host.config, record, steps, 'create:write-record');
    await commitHead(host.builds, steps, 'create', owner, { build: acquired.build.id, facts: {} });
    held.move();
    const machine = await startMachine(host, steps, 'create', record, acquired);
    sandbox.state = { status: 'running', machine };
    if (acquired.build.memory !== null) sandbox.build = await measureBuild(acquired.build);
    sandbox.timings = steps.timings();
    watch(host, sandbox, machine);
    undo.move();
    return sandbox;
  });
}

async function acquireTemplate(host: Host, id: string): Promise<Acquired> {
  const template = id === '' ? 'minimal' : id;
  try {
    return await acquireHead(host.builds, { kind: 'template', id: template });
  } catch (error) {
    if (error instanceof ThawError && error.kind === 'not_found') {
      throw new ThawError('not_found', 'no such template', { cause: error });
    }
    throw error;
  }
}

async function newRecord(
  host: Host,
  request: CreateSandboxRequest,
  { head, build }: Acquired,
): Promise<SandboxRecord> {
  const facts = templateFacts(head.facts);
  const machine = build.manifest.machine;
  const locked = machine === null ? undefined : { vcpus: machine.vcpus, memoryMb: facts.memoryMb };
  const imageMb = build.disk.header.size / MIB;
  const record: SandboxRecord = {
    id: request.sandboxId,
    template: request.template === '' ? 'minimal' : request.template,
    vcpus: request.vcpus || locked?.vcpus || DEFAULTS.vcpus,
    memoryMb: request.memoryMb || locked?.memoryMb || DEFAULTS.memoryMb,
    diskMb: request.diskMb || (locked === undefined ? Math.max(DEFAULTS.diskMb, imageMb) : imageMb),
    timeoutSec: request.timeoutSec,
    env: request.env,
    egress: request.network === undefined ? OPEN_EGRESS : checkedEgress(request.network),
    accessToken: randomBytes(24).toString('hex'),
    machineId: randomBytes(16).toString('hex'),
    counter: Math.max(Date.now(), facts.counter + 1),
    createdAt: nowSeconds(),
    lastActiveAt: nowSeconds(),
    started: true,
  };
  if (machine !== null) {
    await kitFor(host, machine);
    if (record.vcpus !== machine.vcpus || record.memoryMb !== facts.memoryMb || record.diskMb !== imageMb) {
      throw new ThawError(
        'invalid_request',
        'vcpus, memory and disk of a snapshot template can not be changed',
      );
    }
  }
  const { vcpusMax, memoryMbMax } = host.config;
  const fits =
    record.vcpus <= vcpusMax &&
    record.memoryMb >= MEMORY_MB_MIN &&
    record.memoryMb <= memoryMbMax &&
    record.diskMb >= imageMb &&
    record.diskMb <= DISK_MB_MAX;
  if (!fits) {
    throw new ThawError(
      'invalid_request',
      `this host gives 1-${vcpusMax} vcpus, ${MEMORY_MB_MIN}-${memoryMbMax} MiB of memory and a disk of ${imageMb}-${DISK_MB_MAX} MiB`,
    );
  }
  return record;
}
