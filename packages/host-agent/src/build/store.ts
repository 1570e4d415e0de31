import { mkdir } from 'node:fs/promises';
import type { BuildId } from '@thaw/snapshot';
import { Holds } from './holds.ts';
import { KnownBuilds } from './known.ts';
import { BuildPaths, OWNER_KINDS } from './paths.ts';
import { syncDirectory } from './sync.ts';

/** The builds and heads of one data folder. One process writes it at a time. */
export class BuildStore {
  readonly paths: BuildPaths;
  readonly holds = new Holds();
  readonly known = new KnownBuilds();
  /** Sealed builds that no head has named yet: their scope removes them. */
  readonly pending = new Set<BuildId>();
  /** Released, but not looked at or not removed yet because something failed: the next release tries again. */
  readonly unreleased = new Set<BuildId>();
  /** Without a name any more, but their folders could not be removed yet. */
  readonly unnamed = new Set<BuildId>();
  /** What each build's headers name, itself included; builds never change, so this is read once. */
  readonly sources = new Map<BuildId, readonly BuildId[]>();
  #last: Promise<unknown> = Promise.resolve();

  constructor(data: string) {
    this.paths = new BuildPaths(data);
  }

  /** One at a time: what decides which builds are in use, and what takes or gives up the use of one. */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }
}

/** Makes the folders of `data` that are missing, for root alone. */
export async function openBuildStore(data: string): Promise<BuildStore> {
  const store = new BuildStore(data);
  for (const directory of [store.paths.builds, ...OWNER_KINDS.map((kind) => store.paths.owners(kind))]) {
    await mkdir(directory, { recursive: true, mode: 0o700 });
  }
  await syncDirectory(data);
  return store;
}
