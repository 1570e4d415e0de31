/** Firecracker on this host: what it is, and starting VMs with it. */
import { access, constants, readFile, realpath } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import { run } from '../../os/run.ts';
import { isAtLeast, OLDEST, parseVersion } from '../firecracker-api/version.ts';
import { replacePager } from '../memory.ts';
import { measureTsc } from '../tsc.ts';
import type { BootSpec, RestoreSpec, Vm, VmmInfo, VmmKit } from '../vmm.ts';
import { attach, type Binaries, start } from './start.ts';

export async function firecrackerKit(programs: Binaries): Promise<VmmKit> {
  if (programs.jailer !== undefined) await checkJailer(programs.jailer);
  // A jailer names its folder after what a link leads to.
  const binaries = { ...programs, firecracker: await realpath(programs.firecracker) };
  const [version, cpuModel, tscKhz] = await Promise.all([
    readVersion(binaries.firecracker),
    readCpuModel(),
    measureTsc(binaries.keeper),
  ]);
  const info: VmmInfo = {
    vmm: 'firecracker',
    version,
    machine: 'firecracker',
    cpuModel,
    accelerator: 'kvm',
    isolation: 'hardware-vm',
    tscKhz,
  };
  return {
    info,
    // Its own mapping of a file wants all of the memory in one, and tells nobody where that is.
    backends: ['uffd'],
    boot: (spec: BootSpec): Promise<Vm> => start(binaries, info, spec),
    restore: (spec: RestoreSpec): Promise<Vm> => start(binaries, info, spec),
    attach: (keeper, spec): Promise<Vm> => attach(info, keeper, spec),
    replacePager: (keeper, spec): Promise<void> => replacePager(binaries, keeper, spec),
  };
}

/** major.minor. Throws `unavailable` for one that is none, or too old. */
export async function readVersion(program: string): Promise<string> {
  const { stdout } = await run([program, '--version'], { timeoutMs: 5000 });
  // A line of its log may follow.
  const version = parseVersion(stdout.split('\n')[0] ?? '');
  if (version === undefined) throw new ThawError('unavailable', `${program} does not tell its version`);
  if (!isAtLeast(version, OLDEST)) {
    const [found, oldest] = [version.join('.'), OLDEST.join('.')];
    throw new ThawError('unavailable', `Firecracker ${found} is too old: Thaw needs ${oldest} or newer`);
  }
  return version.join('.');
}

async function checkJailer(program: string): Promise<void> {
  await access(program, constants.X_OK).catch((cause) => {
    throw new ThawError('unavailable', `THAW_JAILER=official: there is no ${program}`, { cause });
  });
}

/** Its guests see this host's processor: a snapshot goes on where it is the same. */
async function readCpuModel(): Promise<string> {
  const text = await readFile('/proc/cpuinfo', 'utf8');
  return /^model name\s*:\s*(.+)$/m.exec(text)?.[1]?.trim() ?? 'unknown';
}
