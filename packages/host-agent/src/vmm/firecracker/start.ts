/**
 * From a fresh keeper to a VM that runs:
 *
 *   jail ─┬─► block store ─┐
 *         ├─► pager ───────┼─► API: configure, start │ load ─► go on
 *         └─► Firecracker ─┘                    (handshake with the pager)
 *
 * A process that refused something is not asked again: it is killed, and nothing of the VM is left.
 */
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import type { Jail, Keeper } from '../../keeper/keeper.ts';
import { exists } from '../../os/exists.ts';
import { BlockStore, startDisk } from '../disk.ts';
import { FirecrackerApi } from '../firecracker-api/api.ts';
import { FirecrackerError } from '../firecracker-api/refusal.ts';
import { Pager, startPager } from '../memory.ts';
import { endRoles, type Programs } from '../roles.ts';
import type { AttachSpec, BootSpec, RestoreSpec, Vm, VmmInfo } from '../vmm.ts';
import { argv, bootCalls, ID, JAIL, jailerArgv, loadCall } from './config.ts';
import { SnapshotFiles } from './snapshot.ts';
import { FirecrackerVm } from './vm.ts';

export interface Binaries extends Programs {
  firecracker: string;
  /** Firecracker's own jailer; without it the keeper's jail is all. */
  jailer?: string | undefined;
  /** Guests have a serial port, whose last words are kept. */
  console?: boolean;
}

const API_TIMEOUT_MS = 5000;
const LOAD_TIMEOUT_MS = 15_000;
const LOG_BYTES = 256 * 1024;
const NOFILE_MAX = 2048;
const JAILER_BASE = 'jailer';

export async function start(binaries: Binaries, info: VmmInfo, spec: BootSpec | RestoreSpec): Promise<Vm> {
  const { keeper } = spec;
  if (spec.kind === 'restore' && spec.backend !== 'uffd')
    throw new ThawError('internal', 'the VM did not start', { cause: `no backend ${spec.backend}` });
  await using undo = new AsyncDisposableStack();
  const vmstate = spec.kind === 'restore' ? spec.vmstate : undefined;
  undo.defer(() => rm(spec.snapshotDir, { recursive: true, force: true }));
  const files = await SnapshotFiles.create(spec.snapshotDir, spec.uids.vmm, vmstate).catch((cause) => {
    throw new ThawError('internal', 'the VM did not start', { cause });
  });
  await buildJail(binaries, spec);
  undo.defer(() => endRoles(keeper));
  const store = startDisk(binaries, spec);
  store.catch(() => {});
  const pager = await startPager(binaries, spec);
  const met = spec.kind === 'restore' ? pager.handshake(LOAD_TIMEOUT_MS) : Promise.resolve();
  met.catch(() => {});
  const gone = keeper.gone('vmm');
  const { pid } = await spawn(binaries, spec);
  const ended = new AbortController();
  void gone.then(() => ended.abort());
  const opening = FirecrackerApi.open(apiSocket(keeper), API_TIMEOUT_MS, ended.signal);
  undo.defer(async () => (await opening.catch(() => undefined))?.close());
  try {
    // The drive's file must be there when Firecracker is told of it.
    const [api, disk] = await Promise.all([opening, store]);
    // Only now: a jailer enters the namespace by itself.
    await checkTap(pid, spec.tapName);
    if (spec.kind === 'boot') await api.calls(bootCalls({ ...spec, console: binaries.console ?? true }));
    else await Promise.all([api.call(loadCall({ tapName: spec.tapName }), LOAD_TIMEOUT_MS), met]);
    const vm = new FirecrackerVm({ keeper, api, pager, disk, files, info, pid, gone, kept: false });
    if (spec.kind === 'restore') await vm.goOn();
    undo.move();
    return vm;
  } catch (error) {
    const words = await keeper.logs('vmm').catch(() => '');
    throw failed(error, words);
  }
}

/** Takes over a VM that an earlier host agent started. */
export async function attach(info: VmmInfo, keeper: Keeper, { uids, snapshotDir }: AttachSpec): Promise<Vm> {
  const gone = keeper.gone('vmm');
  const { roles } = await keeper.status();
  if (!roles.vmm?.running) throw new ThawError('unavailable', 'the VM has ended');
  const [pager, disk, api] = await Promise.all([
    Pager.attach(keeper),
    BlockStore.attach(keeper),
    FirecrackerApi.open(apiSocket(keeper), API_TIMEOUT_MS),
  ]);
  const files = new SnapshotFiles(snapshotDir, uids.vmm);
  const kept = await files.isThere();
  return new FirecrackerVm({ keeper, api, pager, disk, files, info, pid: roles.vmm.pid, gone, kept });
}

function apiSocket(keeper: Keeper): string {
  return path.join(keeper.runDir, 'vmm', path.basename(JAIL.apiSocket));
}

async function buildJail({ firecracker, jailer }: Binaries, spec: BootSpec | RestoreSpec): Promise<void> {
  const program = { source: firecracker, target: JAIL.program, ro: true };
  const jail = {
    uid: spec.uids.vmm,
    binds: [
      { source: spec.kernel, target: JAIL.kernel, ro: true },
      { source: spec.initramfs, target: JAIL.initramfs, ro: true },
      { source: spec.snapshotDir, target: JAIL.snapshotDir, ro: false },
      ...(jailer === undefined ? [program] : []),
    ],
    dirs: [],
  };
  if (jailer === undefined) await spec.keeper.jail({ ...jail, devices: await devices() });
  else await spec.keeper.jail({ ...jail, devices: [], jailer_root: jailerRoot(firecracker) });
  // A folder that was used before may hold what a killed Firecracker left.
  await rm(apiSocket(spec.keeper), { force: true });
}

async function devices(): Promise<Jail['devices']> {
  const kvm = (await exists('/dev/kvm')) ? (['kvm'] as const) : [];
  return ['null', 'urandom', 'net/tun', 'userfaultfd', ...kvm];
}

function spawn(binaries: Binaries, spec: BootSpec | RestoreSpec): Promise<{ pid: number }> {
  const { uids, netns, keeper } = spec;
  const common = { env: {}, rlimits: { nofile: NOFILE_MAX }, log_bytes: LOG_BYTES };
  const { firecracker, jailer } = binaries;
  if (jailer === undefined) {
    const user = { uid: uids.vmm, gid: uids.vmm };
    return keeper.spawn('vmm', { ...common, ...user, argv: argv(JAIL.program), root: 'jail', netns });
  }
  const jail = { uid: uids.vmm, netns, base: path.join(keeper.runDir, JAILER_BASE), nofile: NOFILE_MAX };
  const root = { uid: 0, gid: 0, root: 'host', jailer: true } as const;
  return keeper.spawn('vmm', { ...common, ...root, argv: jailerArgv(jailer, firecracker, jail) });
}

/** Where the jailer makes its jail, below the run folder. */
function jailerRoot(firecracker: string): string {
  return `/${JAILER_BASE}/${path.basename(firecracker)}/${ID}/root`;
}

/** A Firecracker that may would make a missing tap instead of saying so. */
async function checkTap(pid: number, name: string): Promise<void> {
  const interfaces = await readFile(`/proc/${pid}/net/dev`, 'utf8');
  if (!new RegExp(`^\\s*${name}:`, 'm').test(interfaces))
    throw new FirecrackerError('start', 'refused', 'tap-missing', `no ${name} in its namespace`);
}

function failed(error: unknown, words: string): ThawError {
  const kind = error instanceof FirecrackerError ? error.kind : 'internal';
  const why = error instanceof FirecrackerError && error.reason !== 'unknown' ? `: ${error.message}` : '';
  return new ThawError(kind, `the VM did not start${why}`, { cause: [error, words] });
}
