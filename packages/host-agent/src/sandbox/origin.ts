/** What a new sandbox of a template starts from, and what it is recorded as. */
import { SANDBOX_ID, ThawError } from '@thaw/api';
import { type Acquired, acquireHead } from '../build/acquire.ts';
import type { Host } from '../host.ts';
import { templateFacts } from '../template/facts.ts';
import { type BootOrigin, bootOrigin } from './boot.ts';
import { kitFor } from './compatible.ts';
import type { SandboxRecord } from './record.ts';
import { newRecord, type Size, type Wish } from './spawn.ts';

const DEFAULTS = { template: 'minimal', vcpus: 1, memoryMb: 512, diskMb: 4096 } as const;
const DISK_MB_MAX = 65536;
const MEMORY_MB_MIN = 128;
const MIB = 2 ** 20;

export interface Wanted {
  record: SandboxRecord;
  /** The template's build; its hold is the caller's. */
  template: Acquired;
  /** Whether it is a base template, which has no memory of its own. */
  isBase: boolean;
}

/** Throws `invalid_request` and `not_found`, nothing held. */
export async function wanted(host: Host, wish: Wish): Promise<Wanted> {
  if (!SANDBOX_ID.test(wish.sandboxId)) throw new ThawError('invalid_request', 'not an id of a sandbox');
  const template = wish.template === '' ? DEFAULTS.template : wish.template;
  const acquired = await acquireTemplate(host, template);
  using held = new DisposableStack();
  held.use(acquired.hold);
  const record = await recordOf(host, { ...wish, template }, acquired);
  held.move();
  return { record, template: acquired, isBase: acquired.build.manifest.machine === null };
}

/** Takes the hold over, also when it throws. */
export async function originOf(host: Host, { record, template, isBase }: Wanted): Promise<BootOrigin> {
  const { build, hold } = template;
  return isBase ? await bootOrigin(host, { build, hold }, record) : { build, hold };
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

async function recordOf(host: Host, wish: Wish, { head, build }: Acquired): Promise<SandboxRecord> {
  const { memoryMb, counter } = templateFacts(head.facts);
  const { machine } = build.manifest;
  const imageMb = build.disk.header.size / MIB;
  if (machine === null) {
    const size = {
      vcpus: wish.vcpus || DEFAULTS.vcpus,
      memoryMb: wish.memoryMb || DEFAULTS.memoryMb,
      diskMb: wish.diskMb || Math.max(DEFAULTS.diskMb, imageMb),
    };
    checkSize(host, size, imageMb);
    return newRecord(wish, size, counter);
  }
  await kitFor(host, machine);
  const locked = { vcpus: machine.vcpus, memoryMb, diskMb: imageMb };
  const differs = (['vcpus', 'memoryMb', 'diskMb'] as const).some(
    (field) => wish[field] !== 0 && wish[field] !== locked[field],
  );
  if (differs) {
    throw new ThawError(
      'invalid_request',
      'vcpus, memory and disk of a snapshot template can not be changed',
    );
  }
  checkSize(host, locked, imageMb);
  return newRecord(wish, locked, counter);
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
