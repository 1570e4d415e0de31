/**
 * From a fresh keeper to a VM that runs:
 *
 *   jail ─► block store ──────────────┬─► monitor ─► (device state) ─► go
 *      └──► pager ─► QEMU ─► handshake┘
 *
 * Ahead of that, as far as it goes: the jail, both processes, and QEMU, which comes to where it opens its disk and waits
 * there until the block store serves it (`ahead.ts`).
 *
 * QEMU starts stopped. It goes only after the pager holds its memory: the loader ignores a preload library that
 * it cannot open, and such a VM would lose its memory at the first snapshot.
 */
import path from 'node:path';
import { ThawError } from '@thaw/api';
import type { Exit, Keeper } from '../../keeper/keeper.ts';
import { BlockStore, startDisk } from '../disk.ts';
import { Pager, startPager } from '../memory.ts';
import { endRoles, type Programs } from '../roles.ts';
import type { AheadSpec, BootSpec, Chain, PrepareSpec, RestoreSpec, Tracker, Vm, VmmInfo } from '../vmm.ts';
import { goOn } from './ahead.ts';
import { argv, FD, JAIL } from './argv.ts';
import { Qmp } from './qmp.ts';
import { QemuVm } from './vm.ts';

export interface Binaries extends Programs {
  preload: string;
  qemu: string;
}

export const HANDSHAKE_TIMEOUT_MS = 2000;
const GREETING_TIMEOUT_MS = 5000;
const NOFILE_MAX = 512;
const LOG_BYTES = 256 * 1024;

/** What a VM is made of, while it starts. */
export interface Parts {
  store: Promise<BlockStore>;
  memory: Promise<Pager>;
  handshake: Promise<void>;
  gone: Promise<Exit>;
  pid: Promise<number>;
}

export async function start(binaries: Binaries, info: VmmInfo, spec: BootSpec | RestoreSpec): Promise<Vm> {
  const { keeper } = spec;
  await using undo = new AsyncDisposableStack();
  if (spec.ahead === undefined) await buildJail(binaries, info, keeper, spec, spec.kind === 'boot');
  undo.defer(() => endRoles(keeper));
  const parts = spec.ahead === 'vmm' ? goOn(binaries, spec) : await startAll(binaries, info, spec);
  for (const part of Object.values(parts)) part.catch(() => {});
  const qmp = Qmp.open(monitorSocket(keeper), GREETING_TIMEOUT_MS);
  undo.defer(async () => (await qmp.catch(() => undefined))?.close());
  try {
    const { gone } = parts;
    const [disk, memory, pid] = await Promise.all([
      parts.store,
      parts.memory,
      parts.pid,
      parts.handshake,
      qmp,
    ]);
    const vm = new QemuVm({ keeper, qmp: await qmp, memory, disk, info, pid, gone, uid: spec.uids.vmm });
    // In this order, without waiting in between.
    await Promise.all([vm.prepare(), spec.kind === 'restore' && vm.load()]);
    await vm.goOn();
    undo.move();
    return vm;
  } catch (error) {
    const words = await keeper.logs('vmm').catch(() => '');
    throw new ThawError('internal', 'the VM did not start', { cause: [error, words] });
  }
}

async function startAll(binaries: Binaries, info: VmmInfo, spec: BootSpec | RestoreSpec): Promise<Parts> {
  const { keeper } = spec;
  const store = startDisk(binaries, spec);
  store.catch(() => {});
  const memory = await startPager(binaries, spec);
  const handshake = memory.handshake(HANDSHAKE_TIMEOUT_MS);
  handshake.catch(() => {});
  // Growing needs the file before QEMU opens it with its final size in mind.
  if (spec.disk.grow) await store;
  const gone = keeper.gone('vmm');
  const { pid } = await spawnQemu(binaries, info, spec, {
    tracker: memory.tracker,
    vmstate: spec.kind === 'restore' ? spec.vmstate : undefined,
    image: spec.kind === 'restore' && spec.backend === 'mapped' ? spec.memory : undefined,
  });
  return { store, memory: Promise.resolve(memory), handshake, gone, pid: Promise.resolve(pid) };
}

/** Takes over a VM that an earlier host agent started. */
export async function attach(info: VmmInfo, keeper: Keeper, vmmUid: number): Promise<Vm> {
  const gone = keeper.gone('vmm');
  const { roles } = await keeper.status();
  if (!roles.vmm?.running) throw new ThawError('unavailable', 'the VM has ended');
  const [memory, disk, qmp] = await Promise.all([
    Pager.attach(keeper),
    BlockStore.attach(keeper),
    Qmp.open(monitorSocket(keeper), GREETING_TIMEOUT_MS),
  ]);
  return new QemuVm({ keeper, qmp, memory, disk, info, pid: roles.vmm.pid, gone, uid: vmmUid });
}

function monitorSocket(keeper: Keeper): string {
  return path.join(keeper.runDir, 'vmm', 'qmp.sock');
}

/** For any VM of this machine; `boots`: also for one that is not restored. */
export function buildJail(
  binaries: Binaries,
  info: VmmInfo,
  keeper: Keeper,
  { uids, kernel, initramfs }: PrepareSpec,
  boots: boolean,
): Promise<void> {
  const boot = boots
    ? [
        { source: kernel, target: JAIL.kernel, ro: true },
        { source: initramfs, target: JAIL.initramfs, ro: true },
      ]
    : [];
  return keeper.jail({
    uid: uids.vmm,
    binds: [...boot, { source: binaries.preload, target: JAIL.preload, ro: true }],
    dirs: [JAIL.memoryDir],
    devices: ['null', 'urandom', 'net/tun', ...(info.accelerator === 'kvm' ? (['kvm'] as const) : [])],
  });
}

interface Qemu extends AheadSpec {
  keeper: Keeper;
  kind: 'boot' | 'restore';
  cmdline: string[];
}

interface Start {
  tracker: Tracker;
  /** What is restored; may be written until then. */
  vmstate?: string | undefined;
  /** What its memory is mapped from. */
  image?: Chain | undefined;
}

export function spawnQemu(
  binaries: Binaries,
  info: VmmInfo,
  spec: Qemu,
  { tracker, vmstate, image: chain }: Start,
): Promise<{ pid: number }> {
  const { keeper, uids } = spec;
  const state = vmstate === undefined ? [] : [{ as: FD.vmstate, open: vmstate, flags: 'r' as const }];
  const image = chain === undefined ? NO_IMAGE : imageOf(chain);
  return keeper.spawn('vmm', {
    argv: argv({
      program: binaries.qemu,
      accelerator: info.accelerator === 'kvm' ? 'kvm' : 'tcg',
      vcpus: spec.vcpus,
      memoryMb: spec.memoryMb,
      tapName: spec.tapName,
      tscKhz: info.tscKhz,
      cmdline: spec.cmdline,
      incoming: spec.kind === 'restore',
    }),
    env: {
      LD_PRELOAD: JAIL.preload,
      THAW_MEM_PATH: JAIL.memory,
      THAW_UFFD_DEV_FD: String(FD.userfaultfd),
      THAW_PAGER_SOCKET: JAIL.pagerSocket,
      THAW_PAGER_MODE: chain === undefined ? spec.kind : 'mapped',
      THAW_TRACKER: tracker,
      ...image.env,
    },
    uid: uids.vmm,
    gid: uids.vmm,
    root: 'jail',
    netns: spec.netns,
    fds: [
      { as: FD.userfaultfd, open: '/dev/userfaultfd', flags: 'rw' },
      { as: FD.monitor, listen: monitorSocket(keeper), uid: 0, mode: 0o600 },
      ...state,
      ...image.fds,
    ],
    rlimits: { nofile: NOFILE_MAX + image.fds.length },
    log_bytes: LOG_BYTES,
  });
}

interface Image {
  env: Record<string, string>;
  fds: { as: number; open: string; flags: 'r' }[];
}

const NO_IMAGE: Image = { env: {}, fds: [] };

/** What the preload library maps a build's memory from. */
function imageOf({ header, builds }: Chain): Image {
  const files = Object.entries(builds).map(([id, open], index) => ({
    id,
    fd: { as: FD.memoryHeader + 1 + index, open, flags: 'r' as const },
  }));
  return {
    env: {
      THAW_MEM_HEADER_FD: String(FD.memoryHeader),
      THAW_MEM_BUILDS: files.map(({ id, fd }) => `${id}=${fd.as}`).join(','),
    },
    fds: [{ as: FD.memoryHeader, open: header, flags: 'r' }, ...files.map(({ fd }) => fd)],
  };
}
