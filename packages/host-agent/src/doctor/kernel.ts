/** What the kernel and the processor can do. */
import { access, constants, mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { z } from 'zod';
import { Cgroups } from '../os/cgroup/cgroups.ts';
import { CONTROLLERS } from '../os/cgroup/layout.ts';
import { exists } from '../os/exists.ts';
import { CommandError, run } from '../os/run.ts';
import { kvmWorks } from '../vmm/qemu/accelerator.ts';
import { type Finding, fail, type Machine, ok, warn } from './finding.ts';

const PROBE_TIMEOUT_MS = 5000;
const OLDEST_KERNEL = [6, 1] as const;

const pagerSchema = z.object({ userfaultfd: z.string().nullable(), tracker: z.enum(['scan', 'compare']) });

export async function system({ uid, architecture, kernelRelease }: Machine): Promise<Finding[]> {
  const [major = 0, minor = 0] = kernelRelease.split('.').map(Number);
  const old = major < OLDEST_KERNEL[0] || (major === OLDEST_KERNEL[0] && minor < OLDEST_KERNEL[1]);
  return [
    uid === 0
      ? ok('user', 'root')
      : fail('user', 'this is not root: sandboxes need namespaces, taps and mounts', 'run it with sudo'),
    architecture === 'x64'
      ? ok('processor', `${os.availableParallelism()} × x86_64`)
      : fail('processor', `this machine is ${architecture}`, 'use a machine with an x86_64 processor'),
    old
      ? fail('kernel', `Linux ${kernelRelease} is too old`, 'install Linux 6.1 or newer (Debian 12 has it)')
      : ok('kernel', `Linux ${kernelRelease}`),
  ];
}

export async function memoryServing({ versionDir, devices }: Machine): Promise<Finding[]> {
  const { stdout } = await run([path.join(versionDir, 'bin/thaw-pager'), 'probe', devices.userfaultfd], {
    timeoutMs: PROBE_TIMEOUT_MS,
  });
  const { userfaultfd, tracker } = pagerSchema.parse(JSON.parse(stdout));
  const served =
    userfaultfd === null
      ? ok('userfaultfd', 'serves a page and is told of writes')
      : fail(
          'userfaultfd',
          `${devices.userfaultfd}: ${userfaultfd}`,
          'use a kernel with CONFIG_USERFAULTFD=y, 6.1 or newer; in a container, hand the device in (--device /dev/userfaultfd)',
        );
  const tracked =
    tracker === 'scan'
      ? ok('PAGEMAP_SCAN', 'changed pages are found by the kernel')
      : warn(
          'PAGEMAP_SCAN',
          'this kernel lacks it: changed pages are found by comparing, so pauses cost more',
          'install Linux 6.7 or newer (bookworm-backports has it)',
        );
  return [served, tracked];
}

/** Mounts a file system that nobody serves, in a mount namespace that ends with the probe. */
export async function fuse({ devices }: Machine): Promise<Finding> {
  const fix = 'load it with `modprobe fuse`; in a container, hand in /dev/fuse and the right to mount';
  if (!(await exists(devices.fuse))) return fail('FUSE', `there is no ${devices.fuse}`, fix);
  const folder = await mkdtemp(path.join(os.tmpdir(), 'thaw-doctor-'));
  try {
    const options = 'fd=9,rootmode=40000,user_id=0,group_id=0';
    const script = 'exec 9<>"$1" && exec mount -i -t fuse.thaw-doctor -o "$2" thaw-doctor "$3"';
    await run(['unshare', '--mount', 'sh', '-c', script, 'sh', devices.fuse, options, folder], {
      timeoutMs: PROBE_TIMEOUT_MS,
    });
    return ok('FUSE', 'mounts');
  } catch (error) {
    return fail('FUSE', `a file system can't be mounted: ${reason(error)}`, fix);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

export async function kvm({ devices, cpuinfo, qemu, versionDir }: Machine): Promise<Finding> {
  const slow = 'sandboxes are emulated: slower, and QEMU does not call its emulator a security boundary';
  const flags = /^flags\s*:(.*)$/m.exec(await readFile(cpuinfo, 'utf8'))?.[1] ?? '';
  const capable = / (vmx|svm)\b/.test(flags);
  if (!(await exists(devices.kvm))) {
    return capable
      ? warn(
          'KVM',
          `there is no ${devices.kvm}; ${slow}`,
          'load it: `modprobe kvm_intel` or `modprobe kvm_amd`',
        )
      : warn(
          'KVM',
          `the processor shows no virtualisation; ${slow}`,
          'switch on VT-x or AMD-V in the firmware, or nested virtualisation where this machine is a VM',
        );
  }
  const usable = await access(devices.kvm, constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  if (!usable)
    return warn('KVM', `${devices.kvm} can't be opened; ${slow}`, 'run as root, outside of a container');
  const kernel = path.join(versionDir, 'guest/vmlinux');
  if (await kvmWorks(qemu, { kernel })) return ok('KVM', 'a guest kernel starts under it');
  return warn(
    'KVM',
    `${devices.kvm} exists, but no guest starts under it${capable ? '' : ' (the processor shows no virtualisation)'}; ${slow}`,
    'switch on nested virtualisation where this machine is a VM, and hardware virtualisation in its firmware',
  );
}

export async function cgroups({ cgroup }: Machine): Promise<Finding[]> {
  await using groups = await Cgroups.open({ instance: `doctor${process.pid}`, group: cgroup });
  return CONTROLLERS.map((name) => {
    const why = groups.missing[name];
    if (why === undefined) return ok(`cgroup ${name}`, 'sandboxes are limited');
    return warn(
      `cgroup ${name}`,
      `sandboxes are not limited: ${why}`,
      "let systemd run Thaw (thaw install does), or name a group that is Thaw's with THAW_CGROUP",
    );
  });
}

/** What a program said when it failed. */
export function reason(error: unknown): string {
  if (error instanceof CommandError) return error.stderr.trim().split('\n')[0] || `${error.argv[0]} failed`;
  return error instanceof Error ? error.message : String(error);
}
