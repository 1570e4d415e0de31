/**
 * Which VMM this host starts new VMs with, and those that it can still run snapshots of.
 *
 *   auto: Firecracker where it is installed and a guest starts under it, else QEMU (with KVM where that works)
 */
import { access, constants } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import { firecrackerKit, readVersion } from './firecracker/kit.ts';
import { firecrackerWorks } from './firecracker/probe.ts';
import { remembered } from './probe-cache.ts';
import { qemuKit } from './qemu/kit.ts';
import type { Programs } from './roles.ts';
import type { VmmKind, VmmKit } from './vmm.ts';

export type Wanted = 'auto' | 'firecracker' | 'qemu';

export interface Wish {
  wanted: Wanted;
  /** Where Firecracker is, if it is there at all. */
  firecracker: string;
  /** A guest kernel for the probes. */
  kernel: string;
  /** Where the probes' answers are kept, by VMM; nothing is kept without it. */
  cache?: (vmm: VmmKind) => string;
}

export interface ChooseOptions extends Wish {
  /** Firecracker's own jailer, where that is to be used. */
  jailer?: string | undefined;
  /** Whether guests of Firecracker have a serial port. */
  console?: boolean;
  programs: Programs & { preload: string; qemu: string };
}

export interface Vmms {
  /** For new VMs. */
  chosen: VmmKit;
  why: string;
  /** For a VM or a snapshot of `vmm`. Throws `invalid_state` with what is missing. */
  of(vmm: string): Promise<VmmKit>;
}

export async function chooseVmm(options: ChooseOptions): Promise<Vmms> {
  const kits = new Map<string, Promise<VmmKit>>();
  const of = (vmm: string): Promise<VmmKit> => {
    let kit = kits.get(vmm);
    if (kit === undefined) {
      kit = open(options, vmm);
      // One that is installed later is found then.
      kit.catch(() => kits.delete(vmm));
      kits.set(vmm, kit);
    }
    return kit;
  };
  const { vmm, why } = await choose(options);
  return { chosen: await of(vmm), why, of };
}

/** Throws `unavailable` where what is wanted can't be had. */
export async function choose(wish: Wish): Promise<{ vmm: VmmKind; why: string }> {
  const { wanted } = wish;
  if (wanted === 'qemu') return { vmm: 'qemu', why: 'THAW_VMM asks for it' };
  const lack = await lackOf(wish);
  if (lack === undefined) {
    const why = wanted === 'auto' ? 'it is installed and a guest starts under it' : 'THAW_VMM asks for it';
    return { vmm: 'firecracker', why };
  }
  if (wanted === 'firecracker') throw new ThawError('unavailable', `THAW_VMM=firecracker: ${lack}`);
  return { vmm: 'qemu', why: lack };
}

/** Why Firecracker can't be used here; undefined if it can. */
async function lackOf({ firecracker, kernel, cache }: Wish): Promise<string | undefined> {
  const installed = await access(firecracker, constants.X_OK).then(
    () => true,
    () => false,
  );
  if (!installed) return `there is no ${firecracker}`;
  try {
    await readVersion(firecracker);
  } catch (error) {
    const said = error instanceof ThawError && error.kind === 'unavailable';
    return said ? error.message : `${firecracker} does not run`;
  }
  const probe = () => firecrackerWorks(firecracker, kernel);
  if (await remembered(cache?.('firecracker'), firecracker, probe)) return undefined;
  return `no guest starts under ${firecracker}`;
}

async function open(options: ChooseOptions, vmm: string): Promise<VmmKit> {
  const { programs, firecracker, jailer, console = true, kernel, cache } = options;
  try {
    if (vmm === 'firecracker') return await firecrackerKit({ ...programs, firecracker, jailer, console });
    if (vmm === 'qemu') {
      const file = cache?.('qemu');
      const probe = file === undefined ? { kernel } : { kernel, cache: file };
      return await qemuKit({ binaries: programs, accelerator: 'auto', probe });
    }
  } catch (cause) {
    throw new ThawError('invalid_state', `this host can't run ${vmm}`, { cause });
  }
  throw new ThawError('invalid_state', `this host knows no VMM called ${vmm}`);
}
