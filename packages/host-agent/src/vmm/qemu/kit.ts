/** Finds out once what this host's QEMU can do, then starts VMs with it. */
import { run } from '../../os/run.ts';
import { replacePager } from '../memory.ts';
import { measureTsc } from '../tsc.ts';
import type { BootSpec, RestoreSpec, Vm, VmmInfo, VmmKit } from '../vmm.ts';
import { kvmWorks } from './accelerator.ts';
import { prepare, startAhead } from './ahead.ts';
import { CPU_MODEL, MACHINE } from './argv.ts';
import type { Binaries } from './spawn.ts';
import { attach, start } from './start.ts';

export interface QemuOptions {
  binaries: Binaries;
  /** auto: KVM when a guest kernel starts under it. */
  accelerator: 'auto' | 'kvm' | 'tcg';
  /** A guest kernel for the probe, and a file that keeps its result until the next boot of the host. */
  probe: { kernel: string; cache?: string };
}

export async function qemuKit(options: QemuOptions): Promise<VmmKit> {
  const { binaries } = options;
  const [accelerator, version, tscKhz] = await Promise.all([
    chooseAccelerator(options),
    readVersion(binaries.qemu),
    measureTsc(binaries.keeper),
  ]);
  const info: VmmInfo = {
    vmm: 'qemu',
    version,
    machine: MACHINE,
    cpuModel: CPU_MODEL,
    accelerator,
    isolation: accelerator === 'kvm' ? 'hardware-vm' : 'emulated',
    tscKhz,
  };
  return {
    info,
    backends: ['uffd', 'mapped'],
    prepare: (keeper, spec): Promise<void> => prepare(binaries, info, keeper, spec),
    startAhead: (keeper, spec): Promise<void> => startAhead(binaries, info, keeper, spec),
    boot: (spec: BootSpec): Promise<Vm> => start(binaries, info, spec),
    restore: (spec: RestoreSpec): Promise<Vm> => start(binaries, info, spec),
    attach: (keeper, { uids }): Promise<Vm> => attach(info, keeper, uids.vmm),
    replacePager: (keeper, spec): Promise<void> => replacePager(binaries, keeper, spec),
  };
}

async function chooseAccelerator({ accelerator, binaries, probe }: QemuOptions): Promise<'kvm' | 'tcg'> {
  if (accelerator !== 'auto') return accelerator;
  return (await kvmWorks(binaries.qemu, probe)) ? 'kvm' : 'tcg';
}

/** major.minor */
async function readVersion(program: string): Promise<string> {
  const { stdout } = await run([program, '--version']);
  const found = /version (\d+\.\d+)/.exec(stdout)?.[1];
  if (found === undefined) throw new Error(`${program} does not tell its version`);
  return found;
}
