import type { Build } from '@thaw/api/rpc';
import type { Database } from '../db/connect.ts';
import { upsertBuild } from './table.ts';

/** Records a build that the host reported, under the build it was made from. Answers its id. */
export async function recordBuild(
  db: Database,
  build: Build | undefined,
  parentId: string | null,
): Promise<string | null> {
  if (!build) return null;
  await upsertBuild(db, {
    id: build.id,
    parent_id: parentId === build.id ? null : parentId,
    generation: build.generation,
    stored_bytes: Number(build.storedBytes),
  });
  return build.id;
}
