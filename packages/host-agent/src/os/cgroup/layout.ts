/**
 * Where this process may make control groups. A machine has version 2 (one tree), version 1 (a tree for each
 * controller) or both, each controller in one of them.
 *
 * Groups are made below a folder that is Thaw's to divide: the one that the operator names, else this process's own
 * where that is the root of the tree. A group that somebody else put this process in is neither divided nor left.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { CgroupSources } from './paths.ts';

export const CONTROLLERS = ['cpu', 'memory', 'pids'] as const;
export type Controller = (typeof CONTROLLERS)[number];

/** One mounted tree with the controllers of it that are wanted. */
export interface Tree {
  version: 1 | 2;
  mountPoint: string;
  /** Below it the instance's group is made; may be missing. */
  parent: string;
  controllers: Controller[];
}

export interface Layout {
  trees: Tree[];
  /** Controllers without a tree, each with the reason in plain words. */
  missing: Partial<Record<Controller, string>>;
}

interface Mount {
  version: 1 | 2;
  /** The group that is seen at the mount point. */
  root: string;
  mountPoint: string;
  /** Of version 1; those of version 2 are read from its files. */
  controllers: string[];
  writable: boolean;
}

/** `parent` is a group as the operator names it: a path from the root of every tree. */
export async function readLayout(sources: CgroupSources, parent?: string): Promise<Layout> {
  const mounts = readMounts(await readFile(sources.mountinfo, 'utf8'));
  const own = readMembership(await readFile(sources.membership, 'utf8'));
  const layout: Layout = { trees: [], missing: {} };
  for (const controller of CONTROLLERS) {
    const mount = await findMount(mounts, controller);
    if (mount === undefined) {
      layout.missing[controller] = 'this machine has no cgroup controller of that name mounted';
      continue;
    }
    if (!mount.writable) {
      layout.missing[controller] = `${mount.mountPoint} is mounted read-only`;
      continue;
    }
    const group = mount.version === 2 ? own.unified : own.byController[controller];
    const folder = parent === undefined ? ownFolder(mount, group) : path.join(mount.mountPoint, parent);
    if (folder === undefined) {
      layout.missing[controller] =
        `this process is in the group ${group}, which is not Thaw's to divide: name one with THAW_CGROUP`;
      continue;
    }
    const known = layout.trees.find((tree) => tree.mountPoint === mount.mountPoint);
    if (known !== undefined) known.controllers.push(controller);
    else
      layout.trees.push({
        version: mount.version,
        mountPoint: mount.mountPoint,
        parent: folder,
        controllers: [controller],
      });
  }
  return layout;
}

/** The folder of the root group, if this process is in that. */
function ownFolder(mount: Mount, group: string | undefined): string | undefined {
  return group === mount.root ? mount.mountPoint : undefined;
}

async function findMount(mounts: Mount[], controller: Controller): Promise<Mount | undefined> {
  const one = mounts.find((mount) => mount.version === 1 && mount.controllers.includes(controller));
  if (one !== undefined) return one;
  for (const mount of mounts.filter(({ version }) => version === 2)) {
    const text = await readFile(path.join(mount.mountPoint, 'cgroup.controllers'), 'utf8').catch(() => '');
    if (text.trim().split(' ').includes(controller)) return mount;
  }
  return undefined;
}

/** `id parent major:minor root mountpoint options… - type source superoptions` */
function readMounts(text: string): Mount[] {
  return text.split('\n').flatMap((line): Mount[] => {
    const [left = '', right = ''] = line.split(' - ');
    const [, , , root, mountPoint, options] = left.split(' ');
    const [type, , superOptions = ''] = right.split(' ');
    if (root === undefined || mountPoint === undefined || (type !== 'cgroup' && type !== 'cgroup2'))
      return [];
    const flags = [...(options ?? '').split(','), ...superOptions.split(',')];
    return [
      {
        version: type === 'cgroup2' ? 2 : 1,
        root: plain(root),
        mountPoint: plain(mountPoint),
        controllers: superOptions.split(','),
        writable: !flags.includes('ro'),
      },
    ];
  });
}

/** `id:controllers:path`; version 2 has the id 0 and no controllers. */
function readMembership(text: string): { unified?: string; byController: Record<string, string> } {
  const result: { unified?: string; byController: Record<string, string> } = { byController: {} };
  for (const line of text.split('\n')) {
    const match = /^(\d+):([^:]*):(.*)$/.exec(line);
    if (match === null) continue;
    const [, id, controllers = '', group = ''] = match;
    if (id === '0') result.unified = group;
    for (const controller of controllers.split(',')) result.byController[controller] = group;
  }
  return result;
}

/** Spaces and the like are octal in mountinfo. */
function plain(text: string): string {
  return text.replace(/\\(\d{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
