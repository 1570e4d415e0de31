/** What Firecracker is asked for one sandbox. Paths are those of its jail: the same in each, so that any snapshot loads in any. */
import { GUEST_MAC } from '../../network/addresses.ts';
import { KERNEL_PARAMETERS } from '../cmdline.ts';
import { DISK_PATH } from '../disk.ts';
import { type Call, put } from '../firecracker-api/api.ts';

export const JAIL = {
  program: '/thaw/firecracker',
  kernel: '/boot/vmlinux',
  initramfs: '/boot/initramfs',
  apiSocket: '/run/api.sock',
  pagerSocket: '/run/pager.sock',
  snapshotDir: '/snapshot',
} as const;

/** In the snapshot folder: what is written, and what is loaded. */
export const SNAPSHOT = { state: 'state', memory: 'memory', loaded: 'loaded' } as const;

const INTERFACE = 'eth0';
const DRIVE = 'rootfs';

export interface Vsock {
  /** 3 or more: Firecracker takes 2, which is the host's. */
  cid: number;
  /** In the jail; nothing may be there. */
  socket: string;
}

export interface Guest {
  vcpus: number;
  memoryMb: number;
  tapName: string;
  cmdline: readonly string[];
  /** Without a console the guest has no serial port to flood anyone with, nor to say anything by. */
  console?: boolean;
  vsock?: Vsock;
}

/** Memory out of a file, or as the pager serves it. */
export interface Load {
  tapName: string;
  memory?: { file: string };
  vsock?: Vsock;
}

/** By which Firecracker and its jailer know the VM; there is one in each jail. */
export const ID = 'thaw';

export function argv(program: string): string[] {
  return [program, '--id', ID, '--api-sock', JAIL.apiSocket];
}

export interface JailerOptions {
  uid: number;
  /** Path of the network namespace. */
  netns: string;
  /** The jail is `{base}/{name of the program}/{ID}/root`. */
  base: string;
  nofile: number;
}

/** The jailer passes the id on by itself. */
export function jailerArgv(
  jailer: string,
  firecracker: string,
  { uid, netns, base, nofile }: JailerOptions,
): string[] {
  return [
    jailer,
    ...['--id', ID, '--exec-file', firecracker, '--uid', String(uid), '--gid', String(uid)],
    ...['--chroot-base-dir', base, '--netns', netns, '--resource-limit', `no-file=${nofile}`],
    ...['--', '--api-sock', JAIL.apiSocket],
  ];
}

/** From a fresh process to a kernel that starts. */
export function bootCalls(guest: Guest): Call[] {
  return [
    put('/machine-config', {
      vcpu_count: guest.vcpus,
      mem_size_mib: guest.memoryMb,
      smt: false,
      track_dirty_pages: true,
    }),
    put('/boot-source', {
      kernel_image_path: JAIL.kernel,
      initrd_path: JAIL.initramfs,
      boot_args: parameters(guest).join(' '),
    }),
    put(`/drives/${DRIVE}`, {
      drive_id: DRIVE,
      path_on_host: DISK_PATH,
      is_root_device: true,
      is_read_only: false,
      // A flush of the guest's is one of the block store's.
      cache_type: 'Writeback',
      io_engine: 'Sync',
    }),
    put(`/network-interfaces/${INTERFACE}`, {
      iface_id: INTERFACE,
      host_dev_name: guest.tapName,
      guest_mac: GUEST_MAC,
    }),
    ...(guest.vsock === undefined
      ? []
      : [put('/vsock', { guest_cid: guest.vsock.cid, uds_path: guest.vsock.socket })]),
    put('/entropy', {}),
    put('/balloon', { amount_mib: 0, deflate_on_oom: true, stats_polling_interval_s: 0 }),
    put('/actions', { action_type: 'InstanceStart' }),
  ];
}

function parameters({ console = true, cmdline }: Guest): string[] {
  const silent = (name: string) => name.startsWith('console=') || name.startsWith('8250.');
  const kernel = console ? KERNEL_PARAMETERS : KERNEL_PARAMETERS.filter((name) => !silent(name));
  return [...kernel, ...(console ? [] : ['8250.nr_uarts=0']), 'reboot=k', ...cmdline];
}

/** A stopped VM out of a snapshot. */
export function loadCall({ tapName, memory, vsock }: Load): Call {
  return put('/snapshot/load', {
    snapshot_path: `${JAIL.snapshotDir}/${SNAPSHOT.loaded}`,
    mem_backend:
      memory === undefined
        ? { backend_type: 'Uffd', backend_path: JAIL.pagerSocket }
        : { backend_type: 'File', backend_path: memory.file },
    // Neither is in the snapshot.
    track_dirty_pages: true,
    resume_vm: false,
    network_overrides: [{ iface_id: INTERFACE, host_dev_name: tapName }],
    ...(vsock && { vsock_override: { uds_path: vsock.socket } }),
    clock_realtime: true,
  });
}

/**
 * Diff: what changed since the last one, or since the start; into an existing memory file at its place. Full: all of
 * memory, which brings in every page that is missing.
 */
export function createCall(type: 'Diff' | 'Full' = 'Diff'): Call {
  return put('/snapshot/create', {
    snapshot_type: type,
    snapshot_path: `${JAIL.snapshotDir}/${SNAPSHOT.state}`,
    mem_file_path: `${JAIL.snapshotDir}/${SNAPSHOT.memory}`,
  });
}

export function stateCall(state: 'Paused' | 'Resumed'): Call {
  return { method: 'PATCH', path: '/vm', body: { state } };
}
