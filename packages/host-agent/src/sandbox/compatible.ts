/** Whether this host can restore what a snapshot holds. */
import { ThawError } from '@thaw/api';
import { type Machine, mismatches } from '@thaw/snapshot';
import type { Host } from '../host.ts';

/** Throws `invalid_state` with every reason; nothing has been started then. */
export function checkMachine(host: Host, machine: Machine): void {
  const { vmm, version, machine: machineType, cpuModel, accelerator, tscKhz } = host.vmm.info;
  const reasons = mismatches(machine, {
    vmm,
    vmm_version: version,
    machine_type: machineType,
    cpu_model: cpuModel,
    accelerator,
    tsc_khz: tscKhz,
  });
  if (reasons.length > 0) {
    throw new ThawError('invalid_state', `the snapshot can't be restored here: ${reasons.join('; ')}`);
  }
}
