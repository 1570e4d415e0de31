/**
 * Which VMM this host starts new VMs with, and those that it can still run snapshots of.
 *
 *   auto: Firecracker where it is installed and a guest starts under it, else QEMU (with KVM where that works)
 */
import { access, constants } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import { firecrackerKit } from './firecracker/kit.ts';
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
export async function choose(options: Wish): Promise<{ vmm: VmmKind; why: string }> {
  const { wanted, firecracker, kernel, cache } = options;
  if (wanted === 'qemu') return { vmm: 'qemu', why: 'THAW_VMM asks for it' };
  const installed = await access(firecracker, constants.X_OK).then(
    () => true,
    () => false,
  );
  const works =
    installed &&
    (await remembered(cache?.('firecracker'), firecracker, () => firecrackerWorks(firecracker, kernel)));
  if (works) {
    const why = wanted === 'auto' ? 'it is installed and a guest starts under it' : 'THAW_VMM asks for it';
    return { vmm: 'firecracker', why };
  }
  const lack = installed ? `no guest starts under ${firecracker}` : `there is no ${firecracker}`;
  if (wanted === 'firecracker') {
    throw new ThawError('unavailable', `THAW_VMM=firecracker: ${lack}`);
  }
  return { vmm: 'qemu', why: lack };
}

async function open(
  { programs, firecracker, jailer, kernel, cache }: ChooseOptions,
  vmm: string,
): Promise<VmmKit> {
  try {
    if (vmm === 'firecracker') return await firecrackerKit({ ...programs, firecracker, jailer });
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
