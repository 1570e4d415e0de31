import { rename, rm } from 'node:fs/promises';
import type { BuildId } from '@thaw/snapshot';
import { isMissing } from './damaged.ts';
import type { BuildStore } from './store.ts';
import { syncDirectory } from './sync.ts';

/**
 * Takes a sealed build's name away: from here on it is a temporary folder, whatever stops its removal half-way, and never
 * half a build. Nothing may refer to it any more.
 */
export async function unnameBuild(store: BuildStore, id: BuildId): Promise<void> {
  store.sources.delete(id);
  try {
    await rename(store.paths.build(id).dir, store.paths.temporary(id).dir);
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
  await syncDirectory(store.paths.builds);
}

/** Removes the folder of a build that has no name: its blocks are free after this. */
export async function removeTemporary(store: BuildStore, id: BuildId): Promise<void> {
  await rm(store.paths.temporary(id).dir, { recursive: true, force: true });
}
