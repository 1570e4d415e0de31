/**
 * After a restart of the host agent: running VMs are taken over from their keepers, paused sandboxes are listed
 * again, and what no sandbox owns is ended.
 */
import { access, readdir, readFile, rm } from 'node:fs/promises';
import { holdBuild } from '../build/acquire.ts';
import { commitHead, type Head, readHead, sweepHeadless } from '../build/head.ts';
import { measureBuild } from '../build/measure.ts';
import { readBuild } from '../build/read.ts';
import type { BuildStore } from '../build/store.ts';
import { type Host, newSteps } from '../host.ts';
import type { Keeper, Keepers } from '../keeper/keeper.ts';
import { endKeeper, Machine, type MachineState, replacePager } from './machine.ts';
import { bootFiles, SandboxPaths, sandboxesDir, sparesDir } from './paths.ts';
import { isOwn, isPaused, type SandboxRecord, vmOf } from './record.ts';
import { Sandbox, type SandboxState } from './sandbox.ts';
import { watch } from './watch.ts';

const THAW_TIMEOUT_MS = 30_000;

export interface Survivor {
  record: SandboxRecord;
  keeper: Keeper;
  state: MachineState;
  head: Head;
  /** If not, the VM gets another one. */
  pagerRuns: boolean;
}

export interface Found {
  survivors: Survivor[];
  /** Sandboxes whose VM was being started: it never ran for anyone. */
  starting: ReadonlySet<string>;
}

/**
 * VMs that still run and belong to one of `records`; every other keeper under `run` is ended. So is a VM that was
 * paused, and one that was being moved to another build: how far that had come nobody knows.
 */
export async function findSurvivors(
  builds: BuildStore,
  keepers: Keepers,
  roots: { data: string; run: string },
  records: readonly SandboxRecord[],
): Promise<Found> {
  const survivors: Survivor[] = [];
  const starting = new Set<string>();
  const ids = await readdir(sandboxesDir(roots.run)).catch(() => []);
  for (const id of ids) {
    const record = records.find((candidate) => vmOf(candidate) === id);
    const paths = new SandboxPaths(roots, record?.id ?? id, id);
    const keeper = await keepers.connect(paths.run).catch(() => undefined);
    const state = await readState(paths);
    if (state === undefined) starting.add(record?.id ?? id);
    if (keeper !== undefined && record?.started === true) {
      const { roles } = await keeper
        .status()
        .catch(() => ({ roles: {} as Record<string, { running: boolean }> }));
      const whole = ['vmm', 'blockstore'].every((role) => roles[role]?.running === true);
      const head = await readHead(builds, { kind: 'sandbox', id: record.id }).catch(() => undefined);
      const runsOn = head !== undefined && !isPaused(record, head.facts) && state?.moving !== true;
      if (state !== undefined && whole && runsOn) {
        survivors.push({ record, keeper, state, head, pagerRuns: roles.pager?.running === true });
        continue;
      }
    }
    if (keeper !== undefined) await endKeeper(keeper);
    await rm(paths.run, { recursive: true, force: true });
  }
  return { survivors, starting };
}

/**
 * Removes folders of sandboxes and templates that a create never filled or a destroy never finished: no record, no
 * head. Answers their ids.
 */
export async function sweepRemains(
  builds: BuildStore,
  roots: { data: string; run: string },
): Promise<string[]> {
  // Those of a host agent that was killed wait for nobody.
  await rm(sparesDir(roots.data), { recursive: true, force: true });
  const swept: string[] = [];
  for (const id of await readdir(sandboxesDir(roots.data))) {
    const paths = new SandboxPaths(roots, id);
    const known = await access(paths.record).then(
      () => true,
      (error: NodeJS.ErrnoException) => error.code !== 'ENOENT',
    );
    if (known) continue;
    const head = await readHead(builds, { kind: 'sandbox', id }).catch((error: unknown) => error);
    if (head !== undefined) continue;
    await rm(paths.data, { recursive: true, force: true });
    swept.push(id);
  }
  return [...swept, ...(await sweepHeadless(builds))];
}

async function readState(paths: SandboxPaths): Promise<MachineState | undefined> {
  return await readFile(paths.machine, 'utf8').then(
    // One that an older host agent wrote does not say: there was only one.
    (text) => ({ vmm: 'qemu', ...(JSON.parse(text) as object) }) as MachineState,
    () => undefined,
  );
}

/** Fills the registry: a sandbox for each record. */
export async function adopt(host: Host, records: readonly SandboxRecord[], found: Found): Promise<void> {
  for (const record of records) {
    const sandbox = new Sandbox(record, { status: 'paused' });
    const head = await readHead(host.builds, { kind: 'sandbox', id: record.id }).catch(() => undefined);
    const build = head && (await readBuild(host.builds, head.build).catch(() => undefined));
    if (build !== undefined && isOwn(build, head!.facts)) sandbox.build = await measureBuild(build);
    sandbox.state = await settle(host, sandbox, head, found);
    host.registry.add(sandbox);
    if (sandbox.state.status === 'running') watch(host, sandbox, sandbox.state.machine);
    else await removeLeftovers(new SandboxPaths(host.config, record.id, record.vm));
  }
}

/** What only a running VM needs. */
async function removeLeftovers({ disk, snapshot }: SandboxPaths): Promise<void> {
  for (const folder of [disk, snapshot]) await rm(folder, { recursive: true, force: true });
}

async function settle(
  host: Host,
  sandbox: Sandbox,
  head: Head | undefined,
  { survivors, starting }: Found,
): Promise<SandboxState> {
  const { record } = sandbox;
  const survivor = survivors.find((candidate) => candidate.record === record);
  if (survivor !== undefined) {
    try {
      return { status: 'running', machine: await takeOver(host, survivor) };
    } catch (error) {
      host.log.error({ sandbox: record.id, err: error }, 'a running sandbox could not be taken over');
      await endKeeper(survivor.keeper);
      await rm(survivor.keeper.runDir, { recursive: true, force: true });
      return { status: 'error', reason: 'the VM could not be taken over after a restart' };
    }
  }
  // Whatever was cut off came after the seal, or before anything ran: its last build is all there is to it.
  const whole =
    isPaused(record, head?.facts ?? {}) || (starting.has(record.id) && sandbox.build !== undefined);
  if (!whole) return { status: 'error', reason: 'the VM ended while the host agent was away' };
  return record.errorReason === undefined
    ? { status: 'paused' }
    : { status: 'error', reason: record.errorReason };
}

/** The VM may have been stopped in the middle of a seal: that is taken back and it goes on. */
async function takeOver(host: Host, { record, keeper, state, head, pagerRuns }: Survivor): Promise<Machine> {
  await using undo = new AsyncDisposableStack();
  const slot = host.slots.adopt(state.slot);
  undo.defer(() => slot.release());
  // The slot goes when nothing is in it any more.
  undo.defer(() => endKeeper(keeper));
  if (!pagerRuns) {
    const { memoryMb } = record;
    const { tracker } = host.config;
    const { pagerState } = new SandboxPaths(host.config, record.id, record.vm);
    const { memoryBase } = state;
    await replacePager(host, keeper, { pagerState, memoryMb, slot, memoryBase, tracker });
  }
  const { snapshot: snapshotDir } = new SandboxPaths(host.config, record.id, record.vm);
  const kit = await host.kitOf(state.vmm);
  const vm = await kit.attach(keeper, { uids: slot.uids, snapshotDir });
  // The VM will write to the layer that is the disk of a build it was not moved to: nothing may start from that one.
  const owner = { kind: 'sandbox', id: record.id } as const;
  const isSealed = async () => isOwn(await readBuild(host.builds, head.build), head.facts);
  if (head.build !== state.base && (await isSealed()))
    await commitHead(host.builds, newSteps(host), 'adopt', owner, { build: state.base, facts: {} });
  const base = await readBuild(host.builds, state.base);
  const hold = new DisposableStack();
  undo.defer(() => hold[Symbol.dispose]());
  hold.use(holdBuild(host.builds, base));
  if (state.memoryBase !== null && state.memoryBase !== state.base)
    hold.use(holdBuild(host.builds, await readBuild(host.builds, state.memoryBase)));
  const files = bootFiles(host.config.data, state.kernel, state.initramfs);
  const guest = host.guests.open(slot.hostAddress, record.accessToken);
  undo.defer(() => guest.close());
  const boot = { kernelSha: state.kernel, initramfsSha: state.initramfs, ...files };
  const { memoryBase, top } = state;
  const machine = new Machine({
    host,
    record,
    slot,
    keeper,
    vm,
    guest,
    boot,
    base: state.base,
    memoryBase,
    top,
    hold,
    isKnown: true,
  });
  await machine.abort();
  await vm.memory.endWorkset();
  await vm.goOn();
  await host.guests.thaw(slot.hostAddress, THAW_TIMEOUT_MS);
  undo.move();
  return machine;
}
