/**
 * From a fresh keeper to a VM that runs:
 *
 *   jail ─► block store ──────────────┬─► monitor ─► (device state) ─► go
 *      └──► pager ─► QEMU ─► handshake┘
 *
 * Ahead of that, as far as it goes: the jail, both processes, and QEMU, which gets its disk and hands over its memory when
 * the block store serves the disk (`ahead.ts`).
 *
 * QEMU starts stopped. It goes only after the pager holds its memory: the loader ignores a preload library that
 * it cannot open, and such a VM would lose its memory at the first snapshot.
 */
import { ThawError } from '@thaw/api';
import type { Keeper } from '../../keeper/keeper.ts';
import { BlockStore, startDisk } from '../disk.ts';
import { Pager, startPager } from '../memory.ts';
import { endRoles } from '../roles.ts';
import type { BootSpec, RestoreSpec, Vm, VmmInfo } from '../vmm.ts';
import { goOn } from './ahead.ts';
import { Qmp } from './qmp.ts';
import {
  type Binaries,
  buildJail,
  HANDSHAKE_TIMEOUT_MS,
  monitorSocket,
  type Parts,
  spawnQemu,
} from './spawn.ts';
import { QemuVm } from './vm.ts';

const GREETING_TIMEOUT_MS = 5000;

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
