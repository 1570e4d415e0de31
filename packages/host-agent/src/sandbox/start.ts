/** The start of a VM with everything that it occupies, in the order in which its end gives it back. */
import { randomBytes, randomInt } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { ThawError } from '@thaw/api';
import type { Build, Image } from '../build/build.ts';
import type { Guests, Identity } from '../guest/control.ts';
import type { Host } from '../host.ts';
import type { Keeper } from '../keeper/keeper.ts';
import { restores } from '../metrics/metrics.ts';
import { ROLES } from '../network/addresses.ts';
import type { Slot } from '../network/pool.ts';
import { limitsOf } from '../os/cgroup/limits.ts';
import { exists } from '../os/exists.ts';
import type { Steps } from '../os/step.ts';
import { type BootFiles, findBootFiles } from '../vmm/boot-files.ts';
import type { Vm, Workset } from '../vmm/vmm.ts';
import type { BootOrigin } from './boot.ts';
import { keepConsole } from './console.ts';
import { grows, type How, howOf, waitOf } from './how.ts';
import { chainOf, Machine } from './machine.ts';
import { SandboxPaths } from './paths.ts';
import { makePlace, type Place } from './place.ts';
import { type SandboxRecord, vmOf } from './record.ts';

/** An emulated guest needs seconds to boot; one that takes longer than this hangs. */
const INIT_TIMEOUT_MS = 30_000;
const MIB = 2 ** 20;

export interface StartFrom {
  build: Build;
  hold: Disposable;
  /** Called before the guest gets its identity. */
  keep?: BootOrigin['keep'] | undefined;
  /** Where it starts, of the name that its record says. */
  place?: Place | undefined;
}

/** A VM whose guest nobody has told who it is. Disposing ends it, unless it was handed over. */
export interface Nameless extends AsyncDisposable {
  readonly slot: Slot;
  readonly keeper: Keeper;
  readonly vm: Vm;
  readonly boot: BootFiles;
  /** Aborted when a process ends without which the guest never answers. */
  readonly lost: AbortSignal;
  /** Somebody else ends it from now on. */
  handOver(): void;
}

/**
 * Starts the VM on `build` and gives it its identity. `hold` and `place` become the machine's, also when this throws; then
 * nothing of the VM is left.
 */
export async function startMachine(
  host: Host,
  steps: Steps,
  verb: string,
  record: SandboxRecord,
  from: StartFrom,
): Promise<Machine> {
  using held = new DisposableStack();
  held.use(from.hold);
  const paths = new SandboxPaths(host.config, record.id, record.vm);
  const { build, place } = from;
  const nameless = await startNameless(host, steps, verb, { record, paths, build, place });
  held.move();
  return await identify(host, steps, verb, record, nameless, from);
}

export interface Start {
  record: SandboxRecord;
  paths: SandboxPaths;
  build: Build;
  /** Of the name that the record says; one is made without it. */
  place?: Place | undefined;
}

/** Starts the VM on `build`: restored if it has memory, else booted. `place` becomes the VM's, also when this throws. */
export async function startNameless(
  host: Host,
  steps: Steps,
  verb: string,
  { record, paths, build, place: given }: Start,
): Promise<Nameless> {
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(paths.snapshot, { recursive: true, force: true }));
  undo.defer(() => rm(paths.disk, { recursive: true, force: true }));
  undo.use(given);
  const boot =
    build.manifest.machine === null
      ? host.boot
      : await findBootFiles(host.config.data, build.manifest.machine);
  const how = await howOf(host, verb, build);
  const settled = async (taken: Place | undefined) =>
    undo.use(await settle(host, steps, verb, { record, paths, place: taken }));
  const begin = async (place: Place) => {
    if (!isDeepStrictEqual(place.waiting, waitOf(how, record, build))) await place.expect(host, steps, verb);
    const lost = lossOf(place.keeper);
    const parts = { record, paths, place, boot, build, how };
    const vm = await steps.run(`${verb}:start-vm`, () => startVm(host, verb, parts));
    return { place, lost, vm };
  };
  const first = await settled(given);
  const waited = first.waiting !== undefined;
  const begun = await begin(first).catch(async (error: unknown) => {
    if (!waited || !first.isLost) throw error;
    // The VMM that waited is gone; without one nothing but time is lost.
    host.log.warn({ err: error, sandbox: record.id }, 'what was started ahead is gone');
    await first[Symbol.asyncDispose]();
    return begin(await settled(undefined));
  });
  const { slot, keeper } = begun.place;
  const { lost, vm } = begun;
  undo.defer(() => keepConsole(paths, vm));
  const held = undo.move();
  return {
    slot,
    keeper,
    vm,
    boot,
    lost,
    handOver: () => void held.move(),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** From here on it is the sandbox of `record`. Takes both the VM and the hold over, also when it throws. */
export async function identify(
  host: Host,
  steps: Steps,
  verb: string,
  record: SandboxRecord,
  nameless: Nameless,
  { build, hold, keep }: StartFrom,
): Promise<Machine> {
  await using undo = new AsyncDisposableStack();
  const { slot, keeper, vm, boot, lost } = nameless;
  const guest = host.guests.open(slot.hostAddress, record.accessToken);
  const machine = new Machine({
    host,
    record,
    slot,
    keeper,
    vm,
    guest,
    boot,
    base: build.id,
    memoryBase: build.memory === null ? null : build.id,
    top: 0,
    hold,
    isKnown: false,
    workset: vm.memory.backend === 'mapped' ? undefined : await recordOf(verb, build),
  });
  undo.defer(() => machine.letGo());
  undo.use(nameless);
  undo.defer(() => guest.close());
  await keep?.(steps, machine, lost);
  await steps.run(`${verb}:init`, () => initGuest(host.guests, slot.hostAddress, record, lost));
  await steps.run(`${verb}:open-egress`, () => slot.openEgress());
  await steps.run(`${verb}:write-machine`, () => machine.begin());
  nameless.handOver();
  undo.move();
  return machine;
}

/** Aborted when a process ends without which the guest never answers. */
function lossOf(keeper: Keeper): AbortSignal {
  const lost = new AbortController();
  for (const role of ROLES) {
    void keeper.gone(role).then((cause) => {
      lost.abort(new ThawError('internal', 'the VM did not start', { cause: { role, ...cause } }));
    });
  }
  return lost.signal;
}

/** Tells the guest who it is. */
async function initGuest(
  guests: Guests,
  hostAddress: string,
  record: SandboxRecord,
  lost: AbortSignal,
): Promise<void> {
  const identity: Identity = {
    counter: record.counter,
    sandboxId: record.id,
    templateId: record.template,
    accessToken: record.accessToken,
    envVars: record.env,
    hostname: record.id,
    machineId: record.machineId,
    entropy: randomBytes(64).toString('base64'),
    defaultUser: record.defaultUser,
    defaultWorkdir: record.defaultWorkdir,
  };
  await guests.init(hostAddress, identity, INIT_TIMEOUT_MS, lost);
}

interface VmParts {
  record: SandboxRecord;
  paths: SandboxPaths;
  place: Place;
  boot: BootFiles;
  build: Build;
  how: How;
}

function aheadOf({ vmm, waiting }: Place): 'helpers' | 'vmm' | undefined {
  if (waiting !== undefined) return 'vmm';
  return vmm === undefined ? undefined : 'helpers';
}

/** In the place that was made ahead, or in one that is made now, with an empty folder for the disk. */
async function settle(
  host: Host,
  steps: Steps,
  verb: string,
  { record, paths, place }: Pick<Start, 'record' | 'paths' | 'place'>,
): Promise<Place> {
  const make = () => {
    const wish = { name: vmOf(record), limits: limitsOf(record), egress: record.egress };
    return makePlace(host, steps, verb, wish);
  };
  const [placed, emptied] = await Promise.allSettled([
    place === undefined ? make() : place.fit(host, steps, verb, record).then(() => place),
    emptyFolder(paths.disk),
  ]);
  if (placed.status === 'rejected') throw placed.reason;
  if (emptied.status === 'fulfilled') return placed.value;
  await placed.value[Symbol.asyncDispose]();
  throw emptied.reason;
}

async function emptyFolder(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true, mode: 0o700 });
}

/** Where this start's record is kept: a template's gets better with each, any other build has one from its seal. */
async function recordOf(verb: string, { memory, files }: Build): Promise<string | undefined> {
  const isKept = memory !== null && (verb !== 'resume' || !(await exists(files.workset)));
  return isKept ? files.workset : undefined;
}

/** What is known of the pages to begin with. */
async function worksetOf(host: Host, verb: string, build: Build, memory: Image): Promise<Workset> {
  const { workset: file } = build.files;
  // Those of a template take turns by chance, as nobody counts its starts.
  const turn = verb === 'resume' ? memory.header.generation : randomInt(2 ** 32);
  if (await exists(file)) return { file, turn };
  // Of the builds that still hold pages of this one, any that has a record.
  for (const id of memory.sources.keys()) {
    const { workset: earlier } = host.builds.paths.build(id);
    if (id !== build.id && (await exists(earlier))) return { file: earlier, likely: true };
  }
  return { likely: true };
}

async function startVm(
  host: Host,
  verb: string,
  { record, paths, place, boot, build, how }: VmParts,
): Promise<Vm> {
  const sizeBytes = record.diskMb * MIB;
  const { slot, keeper } = place;
  const base = {
    keeper,
    ahead: aheadOf(place),
    uids: slot.uids,
    netns: slot.netnsPath,
    tapName: slot.tap,
    vcpus: record.vcpus,
    memoryMb: record.memoryMb,
    kernel: boot.kernel,
    initramfs: boot.initramfs,
    cmdline: [],
    tracker: host.config.tracker,
    pagerState: paths.pagerState,
    snapshotDir: paths.snapshot,
    disk: {
      sizeBytes,
      top: paths.top('0'),
      base: chainOf(build.disk),
      grow: grows(record, build),
    },
  };
  if (how.kind === 'boot') return host.vmm.boot({ kind: 'boot', ...base });
  const { kit, memory, backend, why } = how;
  host.log.info({ sandbox: record.id, backend, why }, 'memory is restored');
  restores.inc({ backend });
  return kit.restore({
    kind: 'restore',
    ...base,
    memory: chainOf(memory),
    backend,
    workset: await worksetOf(host, verb, build, memory),
    vmstate: build.files.vmstate,
  });
}
