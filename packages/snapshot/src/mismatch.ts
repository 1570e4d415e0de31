import type { Machine } from './manifest.ts';

/** What a host would restore with. */
export type HostMachine = Pick<
  Machine,
  'vmm' | 'vmm_version' | 'machine_type' | 'cpu_model' | 'accelerator' | 'tsc_khz'
>;

/** A guest whose clock source runs further off than this, in parts per million, keeps wrong time. */
export const TSC_TOLERANCE_PPM = 200;

/** Why `host` can't restore what `machine` froze, in sentences for the caller; empty if it can. */
export function mismatches(machine: Machine, host: HostMachine): string[] {
  const reasons: string[] = [];
  const compare = (what: string, made: string, here: string) => {
    if (made !== here) reasons.push(`it was made with ${what} ${made}, this host has ${here}`);
  };
  compare('VMM', machine.vmm, host.vmm);
  if (machine.vmm === host.vmm) {
    compare(`${machine.vmm} version`, majorMinor(machine.vmm_version), majorMinor(host.vmm_version));
  }
  compare('machine type', machine.machine_type, host.machine_type);
  compare('CPU model', machine.cpu_model, host.cpu_model);
  compare('accelerator', machine.accelerator, host.accelerator);
  if (machine.tsc_khz !== null && host.tsc_khz !== null) {
    const ppm = (Math.abs(machine.tsc_khz - host.tsc_khz) / machine.tsc_khz) * 1e6;
    if (ppm > TSC_TOLERANCE_PPM) {
      reasons.push(`it was made with a TSC of ${machine.tsc_khz} kHz, this host has ${host.tsc_khz} kHz`);
    }
  }
  return reasons;
}

function majorMinor(version: string): string {
  return version.split('.').slice(0, 2).join('.');
}
