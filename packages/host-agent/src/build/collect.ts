import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { BuildId } from '@thaw/snapshot';
import type { Steps } from '../os/step.ts';
import { markBuilds } from './mark.ts';
import { namedBuild } from './paths.ts';
import { removeTemporary, unnameBuild } from './remove.ts';
import type { BuildStore } from './store.ts';

/** What another process may still be writing is left alone for this long. */
export const COLLECT_AGE_MS = 3_600_000;

/**
 * Removes builds that nothing refers to and folders of builds never sealed, when they are old enough. Whoever calls it
 * has heard from the control plane and holds the builds of all running VMs. Throws, removing nothing, while a head or
 * header can't be read.
 */
export async function collectBuilds(
  store: BuildStore,
  steps: Steps,
  options: { nowMs?: number; ageMs?: number } = {},
): Promise<BuildId[]> {
  const oldestMs = (options.nowMs ?? Date.now()) - (options.ageMs ?? COLLECT_AGE_MS);
  const removed = await store.exclusive(async () => {
    const live = await markBuilds(store);
    const found: BuildId[] = [];
    for (const name of await readdir(store.paths.builds)) {
      const named = namedBuild(name);
      if (named === undefined || live.has(named.id)) continue;
      if ((await stat(path.join(store.paths.builds, name))).mtimeMs > oldestMs) continue;
      if (!named.temporary) await steps.run('collect:unname-build', () => unnameBuild(store, named.id));
      found.push(named.id);
    }
    return found;
  });
  for (const id of removed) await steps.run('collect:remove-build', () => removeTemporary(store, id));
  return removed;
}
