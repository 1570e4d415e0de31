import { rename, rm } from 'node:fs/promises';
import type { BuildId } from '@thaw/snapshot';
import { isMissing } from './damaged.ts';
import type { BuildStore } from './store.ts';
import { syncDirectory } from './sync.ts';

/**
 * Removes a sealed build that nothing refers to. It loses its name first: whatever stops this half-way leaves a
 * temporary folder, never half a build.
 */
export async function removeBuild(store: BuildStore, id: BuildId): Promise<void> {
  store.sources.delete(id);
  try {
    await rename(store.paths.build(id).dir, store.paths.temporary(id).dir);
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
  await syncDirectory(store.paths.builds);
  await removeTemporary(store, id);
}

export async function removeTemporary(store: BuildStore, id: BuildId): Promise<void> {
  await rm(store.paths.temporary(id).dir, { recursive: true, force: true });
}
