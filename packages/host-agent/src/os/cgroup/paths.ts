/** Where the kernel tells about control groups, and where those of an instance are. */
import path from 'node:path';

/** What a test puts in the kernel's place. */
export interface CgroupSources {
  /** Mounted hierarchies, as in proc_pid_mountinfo(5). */
  mountinfo: string;
  /** The groups of this process, as in cgroups(7). */
  membership: string;
}

export const KERNEL: CgroupSources = { mountinfo: '/proc/self/mountinfo', membership: '/proc/self/cgroup' };

/** The group that holds those of an instance's sandboxes. */
export function instanceGroup(parent: string, instance: string): string {
  return path.join(parent, `thaw-${instance}`);
}

export function sandboxGroup(instanceFolder: string, id: string): string {
  return path.join(instanceFolder, id);
}

/** Writing a process id moves that process in. */
export function members(group: string): string {
  return path.join(group, 'cgroup.procs');
}

/** Version 2: which controllers the groups below have. */
export function subtreeControl(group: string): string {
  return path.join(group, 'cgroup.subtree_control');
}

export function availableControllers(group: string): string {
  return path.join(group, 'cgroup.controllers');
}

export function setting(group: string, name: string): string {
  return path.join(group, name);
}
