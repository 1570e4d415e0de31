import type { BuildId } from '@thaw/snapshot';
import type { Steps } from '../os/step.ts';
import { markBuilds, readSources } from './mark.ts';
import { removeTemporary, unnameBuild } from './remove.ts';
import type { BuildStore } from './store.ts';

export interface Released {
  readonly removed: BuildId[];
  /** Why something was kept that may be unused: a head or header can't be read. */
  readonly refused?: unknown;
}

/**
 * Called when a head or a VM no longer needs build `id`: removes it and those it read from, as far as nothing else refers
 * to them. Never removes anything while any reference is unreadable. What can't be removed now, for that reason or
 * because a step fails, is tried again by the next call.
 */
export async function releaseBuild(
  store: BuildStore,
  steps: Steps,
  verb: string,
  id: BuildId,
): Promise<Released> {
  const refused = await store.exclusive(async (): Promise<unknown> => {
    store.unreleased.add(id);
    const candidates = new Set<BuildId>();
    let unreadable: unknown;
    let live: Set<BuildId>;
    for (const released of store.unreleased) {
      try {
        for (const source of await readSources(store, released)) candidates.add(source);
      } catch (error) {
        unreadable = error;
      }
    }
    try {
      live = await markBuilds(store);
    } catch (refused) {
      return refused;
    }
    // What a head needs is released with that head; what is only held here is looked at again.
    for (const needed of live) if (!store.holds.has(needed)) store.unreleased.delete(needed);
    for (const candidate of candidates) if (!live.has(candidate)) store.unreleased.add(candidate);
    await steps.run(`${verb}:unname-builds`, async () => {
      for (const candidate of candidates) {
        if (live.has(candidate)) continue;
        await unnameBuild(store, candidate);
        store.unnamed.add(candidate);
        store.unreleased.delete(candidate);
      }
    });
    return unreadable;
  });
  const removed = [...store.unnamed];
  await steps.run(`${verb}:remove-builds`, async () => {
    for (const unnamed of removed) {
      await removeTemporary(store, unnamed);
      store.unnamed.delete(unnamed);
    }
  });
  return refused === undefined ? { removed } : { removed, refused };
}
