import { ThawError } from '@thaw/api';
import type { BuildId } from '@thaw/snapshot';
import { type Build, sourcesOf } from './build.ts';
import { damaged } from './damaged.ts';
import { type Head, readHead } from './head.ts';
import { readSources } from './mark.ts';
import type { HeadOwner } from './paths.ts';
import { readBuild } from './read.ts';
import type { BuildStore } from './store.ts';

/** A build that stays on the host until `hold` is disposed. */
export interface Acquired {
  readonly head: Head;
  readonly build: Build;
  readonly hold: Disposable;
}

/**
 * Verifies and holds the build that a head names, with all it reads from. Throws `not_found` if there is no head,
 * `internal` if the build is damaged.
 */
export async function acquireHead(store: BuildStore, owner: HeadOwner): Promise<Acquired> {
  const { head, hold } = await store.exclusive(async () => {
    const head = await readHead(store, owner);
    if (head === undefined)
      throw new ThawError('not_found', `${owner.kind} ${owner.id} has nothing to start from`);
    return { head, hold: store.holds.take(await sources(store, head.build)) };
  });
  try {
    const read = () => readBuild(store, head.build);
    // Many start from a template's; a sandbox's own is read once.
    const build = owner.kind === 'sandbox' ? await read() : await store.known.get(head.build, read);
    return { head, build, hold };
  } catch (error) {
    hold[Symbol.dispose]();
    throw error;
  }
}

/** Holds a build at hand, with all it reads from. */
export function holdBuild(store: BuildStore, build: Build): Disposable {
  return store.holds.take(sourcesOf(build));
}

async function sources(store: BuildStore, id: BuildId): Promise<readonly BuildId[]> {
  try {
    return await readSources(store, id);
  } catch (cause) {
    // The full check says better what is wrong.
    await readBuild(store, id);
    throw damaged(id, 'its headers can not be read', cause);
  }
}
