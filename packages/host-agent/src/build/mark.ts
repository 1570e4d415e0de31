import { readFile } from 'node:fs/promises';
import { type BuildId, buildsOf, parseHeader } from '@thaw/snapshot';
import { isMissing } from './damaged.ts';
import { listHeads } from './head.ts';
import { IMAGE_FILES, OWNER_KINDS } from './paths.ts';
import type { BuildStore } from './store.ts';

/**
 * Every build that something may still read: named by a head or by the headers of such a build, held by this process, or
 * sealed a moment ago. Throws if a head or header can't be read: then nothing may be removed.
 */
export async function markBuilds(store: BuildStore): Promise<Set<BuildId>> {
  const live = new Set<BuildId>([...store.holds.ids(), ...store.pending]);
  for (const kind of OWNER_KINDS) {
    for (const { head } of await listHeads(store, kind)) {
      if (head instanceof Error) throw head;
      for (const id of await readSources(store, head.build)) live.add(id);
    }
  }
  return live;
}

/** The build and all that its headers name; itself alone if its folder is gone. Throws if a header can't be read. */
export async function readSources(store: BuildStore, id: BuildId): Promise<readonly BuildId[]> {
  const known = store.sources.get(id);
  if (known !== undefined) return known;
  const files = store.paths.build(id);
  const sources = new Set([id]);
  let headers = 0;
  for (const kind of ['memory', 'disk'] as const) {
    const bytes = await readFile(files[IMAGE_FILES[kind].header]).catch((error: unknown) => {
      if (isMissing(error)) return undefined;
      throw error;
    });
    if (bytes === undefined) continue;
    for (const source of buildsOf(parseHeader(bytes))) sources.add(source);
    headers++;
  }
  const found = [...sources];
  if (headers > 0) store.sources.set(id, found);
  return found;
}
