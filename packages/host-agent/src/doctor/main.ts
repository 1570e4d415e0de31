/** `thaw doctor`'s program: prints its report of this machine as JSON. */
import { readFile } from 'node:fs/promises';
import os from 'node:os';
import { readConfig } from '../config.ts';
import { examine } from './examine.ts';

const listen = process.env.THAW_LISTEN || '127.0.0.1:8080';

/** As the control plane takes them. */
function proxyListens(api: string): Record<string, string> {
  const { THAW_PROXY_LISTEN: plain, THAW_PROXY_TLS_LISTEN: tls } = process.env;
  const unsaid = api.endsWith(':0') ? '127.0.0.1:0' : '127.0.0.1:8081';
  return {
    ...(plain !== 'off' && { THAW_PROXY_LISTEN: plain || unsaid }),
    ...(tls && { THAW_PROXY_TLS_LISTEN: tls }),
  };
}

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
    listen,
    proxyListens: proxyListens(listen),
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
