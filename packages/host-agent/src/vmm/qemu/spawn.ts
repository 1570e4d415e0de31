/** QEMU's process: its jail, its command line, what it inherits. */
import path from 'node:path';
import type { Exit, Keeper } from '../../keeper/keeper.ts';
import { type BlockStore, DISK_PATH } from '../disk.ts';
import type { Pager } from '../memory.ts';
import type { Programs } from '../roles.ts';
import type { AheadSpec, Chain, PrepareSpec, Tracker, VmmInfo } from '../vmm.ts';
import { argv, FD, JAIL } from './argv.ts';

export interface Binaries extends Programs {
  preload: string;
  qemu: string;
}

export const HANDSHAKE_TIMEOUT_MS = 2000;
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

export function monitorSocket(keeper: Keeper): string {
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

interface Qemu extends Omit<AheadSpec, 'diskBytes'> {
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
  /** It waits for a disk of that size. */
  diskBytes?: number;
}

export function spawnQemu(
  binaries: Binaries,
  info: VmmInfo,
  spec: Qemu,
  { tracker, vmstate, image: chain, diskBytes }: Start,
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
      ...(diskBytes !== undefined && { THAW_DISK_PATH: DISK_PATH, THAW_DISK_BYTES: String(diskBytes) }),
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
