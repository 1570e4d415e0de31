/** What one probe found, and what to do about it. */

import type { Wanted } from '../vmm/choose.ts';

/**
 * `ok`: works. `warn`: sandboxes run, something is worse than it could be. `fail`: no sandbox can run.
 */
export type Status = 'ok' | 'warn' | 'fail';

export interface Finding {
  name: string;
  status: Status;
  /** One plain sentence. */
  found: string;
  /** What to do; absent where there is nothing to do. */
  fix?: string;
}

export interface Probe {
  name: string;
  /** What a probe that breaks or takes too long counts as. */
  ifBroken: 'warn' | 'fail';
  run: (machine: Machine) => Promise<Finding | Finding[]>;
}

/** Where everything is that is looked at: a test puts something else in its place. */
export interface Machine {
  devices: { kvm: string; userfaultfd: string; fuse: string; tun: string };
  /** Installed version: programs, libraries and the guest's files. */
  versionDir: string;
  qemu: string;
  /** What is wanted: THAW_VMM. */
  vmm: Wanted;
  firecracker: string;
  /** The folder of Debian's PostgreSQL versions. */
  postgres: string;
  /** Holds the system's users. */
  passwd: string;
  cpuinfo: string;
  data: string;
  /** host:port of the API. */
  listen: string;
  /** And of the proxy, by the setting that says so. */
  proxyListens: Record<string, string>;
  databaseUrl: string | undefined;
  /** `auto`, `off` or a group. */
  cgroup: string;
  kernelRelease: string;
  architecture: string;
  uid: number;
}

export function ok(name: string, found: string): Finding {
  return { name, status: 'ok', found };
}

export function warn(name: string, found: string, fix?: string): Finding {
  return { name, status: 'warn', found, ...(fix !== undefined && { fix }) };
}

export function fail(name: string, found: string, fix: string): Finding {
  return { name, status: 'fail', found, fix };
}
