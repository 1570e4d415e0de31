/** `thaw doctor`'s program: prints its report of this machine as JSON. */
import { readFile } from 'node:fs/promises';
import os from 'node:os';
import { readConfig } from '../config.ts';
import { examine } from './examine.ts';

try {
  const config = readConfig(process.env);
  const report = await examine({
    devices: { kvm: '/dev/kvm', userfaultfd: '/dev/userfaultfd', fuse: '/dev/fuse', tun: '/dev/net/tun' },
    versionDir: config.versionDir,
    qemu: '/usr/bin/qemu-system-x86_64',
    vmm: config.vmm,
    firecracker: config.firecracker,
    postgres: '/usr/lib/postgresql',
    passwd: '/etc/passwd',
    cpuinfo: '/proc/cpuinfo',
    data: config.data,
    listen: process.env.THAW_LISTEN || '127.0.0.1:8080',
    databaseUrl: process.env.DATABASE_URL || undefined,
    cgroup: config.cgroup,
    kernelRelease: (await readFile('/proc/sys/kernel/osrelease', 'utf8')).trim(),
    architecture: os.arch(),
    uid: process.getuid?.() ?? -1,
  });
  process.stdout.write(`${JSON.stringify(report)}\n`);
  // What a probe left waiting must not keep this process.
  process.exit(0);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exit(1);
}
