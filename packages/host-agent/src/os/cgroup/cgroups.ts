/**
 * The control groups of an instance: `{parent}/thaw-{instance}/{sandbox}` in each tree. A sandbox's keeper enters its
 * group before it has a child, so everything of the sandbox is born in it.
 */
import { constants, mkdir, readdir, readFile, rmdir, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { all } from '../all.ts';
import { CONTROLLERS, type Controller, readLayout, type Tree } from './layout.ts';
import { type Limits, SHARES, settings } from './limits.ts';
import {
  availableControllers,
  type CgroupSources,
  instanceGroup,
  KERNEL,
  members,
  sandboxGroup,
  setting,
  subtreeControl,
} from './paths.ts';

export interface CgroupOptions {
  instance: string;
  /** `auto`, `off`, or a group that is Thaw's to divide, as a path from the root of every tree. */
  group: string;
  sources?: CgroupSources;
}

const REMOVE_WITHIN_MS = 5000;
const ORPHAN_AFTER_MS = 60_000;
const INSTANCE_GROUP = /^thaw-([0-9a-f]{6})$/;

/** Groups are folders whose files the kernel makes and removes; a test does so in its place. */
export interface Folders {
  /** Missing parents are made too; an existing one is no error. */
  make(folder: string): Promise<unknown>;
  remove(folder: string): Promise<void>;
}

const KERNELS: Folders = { make: (folder) => mkdir(folder, { recursive: true }), remove: rmdir };

export class Cgroups implements AsyncDisposable {
  /** Why a controller limits nothing here. */
  readonly missing: Readonly<Partial<Record<Controller, string>>>;
  readonly #trees: readonly (Tree & { folder: string })[];
  readonly #folders: Folders;
  #weighing: Promise<void> = Promise.resolve();

  private constructor(
    trees: readonly (Tree & { folder: string })[],
    missing: Partial<Record<Controller, string>>,
    folders: Folders,
  ) {
    this.#trees = trees;
    this.missing = missing;
    this.#folders = folders;
  }

  /** Finds the trees and makes the instance's group in each. What does not work is in `missing`. */
  static async open(options: CgroupOptions, folders: Folders = KERNELS): Promise<Cgroups> {
    if (options.group === 'off') {
      const off = 'switched off (THAW_CGROUP)';
      return new Cgroups([], Object.fromEntries(CONTROLLERS.map((name) => [name, off])), folders);
    }
    const parent = options.group === 'auto' ? undefined : options.group;
    const { trees, missing } = await readLayout(options.sources ?? KERNEL, parent);
    for (const tree of trees) await sweepOrphans(tree.parent, options.instance, folders);
    const usable: (Tree & { folder: string })[] = [];
    for (const tree of trees) {
      const folder = instanceGroup(tree.parent, options.instance);
      const controllers = await prepare(tree, folder, folders, missing);
      if (controllers.length > 0) usable.push({ ...tree, controllers, folder });
      else await folders.remove(folder).catch(() => {});
    }
    return new Cgroups(usable, missing, folders);
  }

  /** What is limited. */
  get controllers(): Controller[] {
    return this.#trees.flatMap((tree) => tree.controllers);
  }

  /** Makes the group of a sandbox, which must not be running. Throws when a limit can't be set; then there is none. */
  async make(id: string, limits: Limits): Promise<void> {
    await using undo = new AsyncDisposableStack();
    undo.defer(() => this.remove(id));
    await all(this.#trees.map((tree) => this.#makeIn(tree, id, limits)));
    await this.#weigh();
    undo.move();
  }

  /** Sets other limits for the group of a sandbox. Throws when one can't be set; the others may be then. */
  async limit(id: string, limits: Limits): Promise<void> {
    await all(this.#trees.map((tree) => limitGroup(tree, sandboxGroup(tree.folder, id), limits)));
    await this.#weigh();
  }

  /** Moves a process in; what it starts from then on is in too. */
  async enter(id: string, pid: number): Promise<void> {
    // Each waits for the kernel to notice everywhere.
    await all(this.#trees.map((tree) => write(members(sandboxGroup(tree.folder, id)), String(pid))));
  }

  /** Removes a sandbox's group, whose processes have ended. A missing one is no error. */
  async remove(id: string): Promise<void> {
    for (const tree of this.#trees) await this.#removeGroup(sandboxGroup(tree.folder, id));
    await this.#weigh();
  }

  /**
   * The instance's group gets the shares of all groups in it: else the kernel gives all sandboxes together the share of one
   * process. One after another, so that none writes an older sum.
   */
  #weigh(): Promise<void> {
    this.#weighing = this.#weighing.then(async () => {
      for (const tree of this.#trees) {
        if (!tree.controllers.includes('cpu')) continue;
        const { name, one, max } = SHARES[tree.version];
        const groups = (await groupsIn(tree.folder)).map((id) => sandboxGroup(tree.folder, id));
        const shares = await Promise.all(
          groups.map((group) => readFile(setting(group, name), 'utf8').then(Number, () => 0)),
        );
        const sum = shares.reduce((all, each) => all + each, 0);
        // Another instance may have taken the empty group away.
        await write(setting(tree.folder, name), String(Math.min(max, Math.max(one, sum)))).catch(() => {});
      }
    });
    return this.#weighing;
  }

  /** Removes the groups of all sandboxes that are not in `keep`; those that still have processes stay. */
  async sweep(keep: ReadonlySet<string>): Promise<string[]> {
    const swept = new Set<string>();
    for (const tree of this.#trees) {
      for (const id of await groupsIn(tree.folder)) {
        if (keep.has(id)) continue;
        const gone = await this.#folders.remove(sandboxGroup(tree.folder, id)).then(
          () => true,
          () => false,
        );
        if (gone) swept.add(id);
      }
    }
    return [...swept];
  }

  /** Removes the instance's own groups where no sandbox is left in them. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const tree of this.#trees) await this.#folders.remove(tree.folder).catch(() => {});
  }

  async #makeIn(tree: Tree & { folder: string }, id: string, limits: Limits): Promise<void> {
    // Another instance may have taken this one's empty group for a dead one's.
    await prepare(tree, tree.folder, this.#folders, {});
    const group = sandboxGroup(tree.folder, id);
    await this.#folders.make(group);
    await limitGroup(tree, group, limits);
  }

  /** Busy for a moment after the last process was reaped. */
  async #removeGroup(group: string): Promise<void> {
    const deadline = performance.now() + REMOVE_WITHIN_MS;
    for (let pauseMs = 1; ; pauseMs = Math.min(2 * pauseMs, 100)) {
      try {
        return await this.#folders.remove(group);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === 'ENOENT') return;
        if (code !== 'EBUSY' || performance.now() > deadline) throw error;
      }
      await sleep(pauseMs);
    }
  }
}

async function limitGroup({ version, controllers }: Tree, group: string, limits: Limits): Promise<void> {
  for (const controller of controllers) {
    for (const { name, value, optional } of settings(version, controller, limits)) {
      await write(setting(group, name), value).catch((error: NodeJS.ErrnoException) => {
        if (!(optional && error.code === 'ENOENT')) throw error;
      });
    }
  }
}

/** Removes the groups of other instances that died with nobody to come back: old ones in which nothing runs. */
async function sweepOrphans(parent: string, own: string, folders: Folders): Promise<void> {
  for (const name of await groupsIn(parent)) {
    const instance = INSTANCE_GROUP.exec(name)?.[1];
    if (instance === undefined || instance === own) continue;
    const folder = instanceGroup(parent, instance);
    for (const id of await groupsIn(folder)) await removeIfDead(sandboxGroup(folder, id), folders);
    await removeIfDead(folder, folders);
  }
}

/** A group is empty also for the moment between its making and its keeper's start. The kernel refuses a busy one. */
async function removeIfDead(group: string, folders: Folders): Promise<void> {
  const made = await stat(group).catch(() => undefined);
  if (made === undefined || Date.now() - made.mtimeMs < ORPHAN_AFTER_MS) return;
  if ((await readFile(members(group), 'utf8').catch(() => '')).trim() !== '') return;
  await folders.remove(group).catch(() => {});
}

/** Makes the instance's group; the controllers that work below it. */
async function prepare(
  tree: Tree,
  folder: string,
  folders: Folders,
  missing: Partial<Record<Controller, string>>,
): Promise<Controller[]> {
  try {
    await folders.make(folder);
  } catch (error) {
    for (const controller of tree.controllers) missing[controller] = (error as Error).message;
    return [];
  }
  if (tree.version === 1) return tree.controllers;
  const working: Controller[] = [];
  for (const controller of tree.controllers) {
    try {
      // From the root down, the instance's group included: a controller must be handed on at every level.
      for (const group of levels(tree.mountPoint, folder)) await hand(group, controller);
      working.push(controller);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      missing[controller] =
        code === 'EBUSY'
          ? `a group above ${folder} has processes of its own, so it can't be divided: name another with THAW_CGROUP`
          : message;
    }
  }
  return working;
}

async function hand(group: string, controller: Controller): Promise<void> {
  const has = (text: string) => text.trim().split(' ').includes(controller);
  if (has(await readFile(subtreeControl(group), 'utf8'))) return;
  if (!has(await readFile(availableControllers(group), 'utf8')))
    throw new Error(`${group} has no controller ${controller}`);
  await write(subtreeControl(group), `+${controller}`);
}

function levels(mountPoint: string, folder: string): string[] {
  const names = path
    .relative(mountPoint, folder)
    .split('/')
    .filter((name) => name !== '');
  return [mountPoint, ...names.map((_, index) => path.join(mountPoint, ...names.slice(0, index + 1)))];
}

async function groupsIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

/** The kernel's files exist already: one that does not is never made. */
function write(file: string, value: string): Promise<void> {
  return writeFile(file, value, { flag: constants.O_WRONLY | constants.O_TRUNC });
}
