/** Whether this host can restore what a snapshot holds. */
import { ThawError } from '@thaw/api';
import { type Machine, mismatches } from '@thaw/snapshot';
import type { Host } from '../host.ts';
import type { VmmKit } from '../vmm/vmm.ts';

/** What runs it. Throws `invalid_state` with every reason against it; nothing has been started then. */
export async function kitFor(host: Host, machine: Machine): Promise<VmmKit> {
  const kit = await host.kitOf(machine.vmm);
  const { vmm, version, machine: machineType, cpuModel, accelerator, tscKhz } = kit.info;
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
  return kit;
}
