/**
 * What is done before it is known which VM it is for. QEMU starts whole, with a stand-in for its disk and memory that nobody
 * serves; beside it the preload library waits to open the disk, which a file system that nobody serves yet keeps it from. What
 * QEMU restores is written later into the file that it has inherited.
 *
 *   jail ─► block store, pager: idle ─► QEMU: waits │ pager: source ─► block store: base ─► disk, handshake ─► …
 *
 * A QEMU that is given up is killed while it waits: the kernel lets go of who waits for a file system when it must die.
 */
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import { z } from 'zod';
import type { Keeper } from '../../keeper/keeper.ts';
import { run } from '../../os/run.ts';
import { BlockStore, startDisk } from '../disk.ts';
import { Pager, startPager } from '../memory.ts';
import type { AheadSpec, BootSpec, PrepareSpec, RestoreSpec, Tracker, VmmInfo } from '../vmm.ts';
import { Qmp } from './qmp.ts';
import {
  type Binaries,
  buildJail,
  HANDSHAKE_TIMEOUT_MS,
  monitorSocket,
  type Parts,
  spawnQemu,
} from './spawn.ts';

/** It has no share of processors that others use. */
const START_TIMEOUT_MS = 30_000;

const probeSchema = z.object({ tracker: z.enum(['scan', 'compare']) });

export async function prepare(
  binaries: Binaries,
  info: VmmInfo,
  keeper: Keeper,
  spec: PrepareSpec,
): Promise<void> {
  const { uids } = spec;
  await buildJail(binaries, info, keeper, spec, true);
  await Promise.all([
    BlockStore.spawn(keeper, { program: binaries.blockstore, uid: uids.blockstore }),
    Pager.spawn(keeper, { program: binaries.pager, uid: uids.pager }),
  ]);
}

export async function startAhead(
  binaries: Binaries,
  info: VmmInfo,
  keeper: Keeper,
  spec: AheadSpec,
): Promise<void> {
  const vmstate = vmstateOf(keeper);
  await writeFile(vmstate, '', { mode: 0o600 });
  const tracker = await trackerOf(binaries, spec.tracker);
  const qemu = { ...spec, keeper, kind: 'restore' as const, cmdline: [] };
  const { memory: image, diskBytes } = spec;
  await spawnQemu(binaries, info, qemu, { tracker, vmstate, image, diskBytes });
  // Its disk is exchanged when it is not at work with it: once its monitor answers its machine is made.
  const qmp = await Qmp.open(monitorSocket(keeper), START_TIMEOUT_MS);
  qmp.close();
}

/** From where it waits. The keeper takes requests in order: the pager listens before the disk is served. */
export function goOn(binaries: Binaries, spec: BootSpec | RestoreSpec): Parts {
  const { keeper } = spec;
  if (spec.kind !== 'restore' || spec.disk.grow)
    throw new ThawError('internal', 'the VM did not start', { cause: 'another one was started ahead' });
  const { vmstate } = spec;
  const gone = keeper.gone('vmm');
  const handshake = Pager.met(keeper, HANDSHAKE_TIMEOUT_MS);
  const memory = startPager(binaries, spec);
  const store = startDisk(binaries, spec);
  const filled = readFile(vmstate).then((state) => writeFile(vmstateOf(keeper), state));
  const pid = Promise.all([keeper.status(), filled]).then(([{ roles }]) => {
    if (!roles.vmm?.running) throw new ThawError('unavailable', 'the VM has ended');
    return roles.vmm.pid;
  });
  return { store, memory, handshake, gone, pid };
}

/** What QEMU has inherited of it. */
function vmstateOf(keeper: Keeper): string {
  return path.join(keeper.runDir, 'vmstate');
}

/** What a pager of this host would choose. */
async function trackerOf({ pager }: Binaries, wish: 'auto' | Tracker): Promise<Tracker> {
  if (wish !== 'auto') return wish;
  const { stdout } = await run([pager, 'probe', '/dev/userfaultfd']);
  return probeSchema.parse(JSON.parse(stdout)).tracker;
}
