import type { BuildId } from '@thaw/snapshot';
import type { Steps } from '../os/step.ts';
import { markBuilds, readSources } from './mark.ts';
import { removeTemporary, unnameBuild } from './remove.ts';
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
  const released = await store.exclusive(async (): Promise<Released> => {
    let live: Set<BuildId>;
    let candidates: readonly BuildId[];
    try {
      candidates = await readSources(store, id);
      live = await markBuilds(store);
    } catch (refused) {
      return { removed: [], refused };
    }
    const removed = candidates.filter((candidate) => !live.has(candidate));
    await steps.run(`${verb}:unname-builds`, async () => {
      for (const candidate of removed) await unnameBuild(store, candidate);
    });
    return { removed };
  });
  await steps.run(`${verb}:remove-builds`, async () => {
    for (const removed of released.removed) await removeTemporary(store, removed);
  });
  return released;
}
