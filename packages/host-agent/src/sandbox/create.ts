/** Makes a sandbox from a template. */
import { SANDBOX_ID, ThawError, told } from '@thaw/api';
import type { CreateSandboxRequest } from '@thaw/api/rpc';
import { type Acquired, acquireHead } from '../build/acquire.ts';
import type { Host } from '../host.ts';
import { templateFacts } from '../template/facts.ts';
import { type BootOrigin, bootOrigin } from './boot.ts';
import { kitFor } from './compatible.ts';
import type { SandboxRecord } from './record.ts';
import type { Sandbox } from './sandbox.ts';
import { newRecord, type Size, spawn } from './spawn.ts';

const DEFAULTS = { template: 'minimal', vcpus: 1, memoryMb: 512, diskMb: 4096 } as const;
/** What may come of a kept boot that can't be restored. */
const BROKEN: ReadonlySet<string> = new Set(['internal', 'timeout', 'agent_error']);
const DISK_MB_MAX = 65536;
const MEMORY_MB_MIN = 128;
const MIB = 2 ** 20;

export async function create(host: Host, request: CreateSandboxRequest): Promise<Sandbox> {
  if (!SANDBOX_ID.test(request.sandboxId)) throw new ThawError('invalid_request', 'not an id of a sandbox');
  const template = request.template === '' ? DEFAULTS.template : request.template;
  const acquired = await acquireTemplate(host, template);
  using held = new DisposableStack();
  held.use(acquired.hold);
  const record = await recordOf(host, { ...request, template }, acquired);
  const isBase = acquired.build.manifest.machine === null;
  let forget: BootOrigin['forget'];
  try {
    return await spawn(host, record, async () => {
      held.move();
      if (!isBase) return { build: acquired.build, hold: acquired.hold };
      const origin = await bootOrigin(host, acquired, record);
      ({ forget } = origin);
      return { ...origin, head: acquired.build.id };
    });
  } catch (error) {
    if (forget !== undefined && BROKEN.has(told(error).code)) await forget();
    throw error;
  }
}

async function acquireTemplate(host: Host, id: string): Promise<Acquired> {
  try {
    return await acquireHead(host.builds, { kind: 'template', id });
  } catch (error) {
    if (error instanceof ThawError && error.kind === 'not_found') {
      throw new ThawError('not_found', 'no such template', { cause: error });
    }
    throw error;
  }
}

async function recordOf(
  host: Host,
  request: CreateSandboxRequest,
  { head, build }: Acquired,
): Promise<SandboxRecord> {
  const { memoryMb, counter } = templateFacts(head.facts);
  const { machine } = build.manifest;
  const imageMb = build.disk.header.size / MIB;
  if (machine === null) {
    const size = {
      vcpus: request.vcpus || DEFAULTS.vcpus,
      memoryMb: request.memoryMb || DEFAULTS.memoryMb,
      diskMb: request.diskMb || Math.max(DEFAULTS.diskMb, imageMb),
    };
    checkSize(host, size, imageMb);
    return newRecord(request, size, counter);
  }
  await kitFor(host, machine);
  const locked = { vcpus: machine.vcpus, memoryMb, diskMb: imageMb };
  const differs = (['vcpus', 'memoryMb', 'diskMb'] as const).some(
    (field) => request[field] !== 0 && request[field] !== locked[field],
  );
  if (differs) {
    throw new ThawError(
      'invalid_request',
      'vcpus, memory and disk of a snapshot template can not be changed',
    );
  }
  checkSize(host, locked, imageMb);
  return newRecord(request, locked, counter);
}

function checkSize(host: Host, { vcpus, memoryMb, diskMb }: Size, imageMb: number): void {
  const { vcpusMax, memoryMbMax } = host.config;
  const fits =
    vcpus <= vcpusMax &&
    memoryMb >= MEMORY_MB_MIN &&
    memoryMb <= memoryMbMax &&
    diskMb >= imageMb &&
    diskMb <= DISK_MB_MAX;
  if (fits) return;
  throw new ThawError(
    'invalid_request',
    `this host gives 1-${vcpusMax} vcpus, ${MEMORY_MB_MIN}-${memoryMbMax} MiB of memory and a disk of ${imageMb}-${DISK_MB_MAX} MiB`,
  );
}
