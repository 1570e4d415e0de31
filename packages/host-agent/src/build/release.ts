import type { BuildId } from '@thaw/snapshot';
import type { Steps } from '../os/step.ts';
import { markBuilds, readSources } from './mark.ts';
import { removeBuild } from './remove.ts';
import type { BuildStore } from './store.ts';

export interface Released {
  readonly removed: BuildId[];
  /** Why nothing could be removed: some other head or header can't be read. */
  readonly refused?: unknown;
}

/**
 * Called when a head or a VM no longer needs build `id`: removes it and those it read from, as far as nothing else refers
 * to them. Never removes anything while any reference is unreadable.
 */
export async function releaseBuild(
  store: BuildStore,
  steps: Steps,
  verb: string,
  id: BuildId,
): Promise<Released> {
  return await store.exclusive(async () => {
    let live: Set<BuildId>;
    let candidates: readonly BuildId[];
    try {
      candidates = await readSources(store, id);
      live = await markBuilds(store);
    } catch (refused) {
      return { removed: [], refused };
    }
    const removed: BuildId[] = [];
    for (const candidate of candidates) {
      if (live.has(candidate)) continue;
      await steps.run(`${verb}:remove-build`, () => removeBuild(store, candidate));
      removed.push(candidate);
    }
    return { removed };
  });
}
