/** Which VMM new sandboxes get, and why. */
import path from 'node:path';
import { exists } from '../os/exists.ts';
import { choose } from '../vmm/choose.ts';
import { type Finding, fail, type Machine, ok, warn } from './finding.ts';
import { reason } from './kernel.ts';

const NAMES = { firecracker: 'Firecracker', qemu: 'QEMU', fake: 'a fake' } as const;

export async function vmm({ vmm: wanted, firecracker, devices, versionDir }: Machine): Promise<Finding> {
  const kernel = path.join(versionDir, 'guest/vmlinux');
  const install = `put Firecracker 1.8 or newer at ${firecracker}, or say where it is with THAW_FIRECRACKER_BIN`;
  try {
    const { vmm: chosen, why } = await choose({ wanted, firecracker, kernel });
    const found = `${NAMES[chosen]}: ${why}`;
    // With an emulator Firecracker would be no use.
    const better = chosen === 'qemu' && wanted === 'auto' && (await exists(devices.kvm));
    return better ? warn('VMM', found, install) : ok('VMM', found);
  } catch (error) {
    return fail('VMM', reason(error), `${install}; or set THAW_VMM=auto`);
  }
}
