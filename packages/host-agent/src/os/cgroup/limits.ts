/** What one sandbox may use at most, and how either version of control groups is told. */
import type { Controller } from './layout.ts';

export interface Limits {
  /** Processors' worth of time. */
  cpus: number;
  /** Its share of busy processors: that of as many ordinary processes; 0 is as good as none. */
  shares: number;
  memoryBytes: number;
  /** Processes and threads. */
  tasks: number;
}

/** One file to write. */
export interface Setting {
  name: string;
  value: string;
  /** Kernels may lack it, and the limit holds without it. */
  optional?: boolean;
}

const MIB = 2 ** 20;
/** Beside guest memory: QEMU's own, translated code, pager, block store and what they read ahead. */
const OVERHEAD_BYTES = 512 * MIB;
/** QEMU may have 64 threads for its disk's requests; the rest is the keeper, the pager and the block store. */
const TASKS = 256;
const PERIOD_US = 100_000;

/**
 * Memory is counted twice: a pause writes it to files, and those pages count for the sandbox until they are on
 * disk. One processor more than the guest has is for those who serve its memory and disk.
 */
export function limitsOf(sandbox: { vcpus: number; memoryMb: number }): Limits {
  return {
    cpus: sandbox.vcpus + 1,
    shares: sandbox.vcpus,
    memoryBytes: 2 * sandbox.memoryMb * MIB + OVERHEAD_BYTES,
    tasks: TASKS + 2 * sandbox.vcpus,
  };
}

/** The file in which a group's share of busy processors is said, and the most that it may be. */
export const SHARES = {
  1: { name: 'cpu.shares', one: 1024, max: 262_144 },
  2: { name: 'cpu.weight', one: 100, max: 10_000 },
} as const;

/** Of both versions: the kernel takes nothing less. */
const SHARE_MIN = 2;

function shareOf(version: 1 | 2, shares: number): Setting {
  const { name, one, max } = SHARES[version];
  return { name, value: String(Math.min(max, Math.max(SHARE_MIN, one * shares))) };
}

export function settings(version: 1 | 2, controller: Controller, limits: Limits): Setting[] {
  const quota = String(Math.round(limits.cpus * PERIOD_US));
  switch (controller) {
    case 'cpu':
      return version === 2
        ? [
            { name: 'cpu.max', value: `${quota} ${PERIOD_US}`, optional: true },
            shareOf(version, limits.shares),
          ]
        : [
            { name: 'cpu.cfs_period_us', value: String(PERIOD_US), optional: true },
            { name: 'cpu.cfs_quota_us', value: quota, optional: true },
            shareOf(version, limits.shares),
          ];
    case 'memory':
      return version === 2
        ? [
            { name: 'memory.max', value: String(limits.memoryBytes) },
            // A VM without its pager is of no use: the processes of a sandbox go together.
            { name: 'memory.oom.group', value: '1', optional: true },
          ]
        : [{ name: 'memory.limit_in_bytes', value: String(limits.memoryBytes) }];
    case 'pids':
      return [{ name: 'pids.max', value: String(limits.tasks) }];
  }
}
