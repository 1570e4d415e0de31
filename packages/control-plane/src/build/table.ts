import { type Insertable, sql } from 'kysely';
import type { Database } from '../db/connect.ts';
import type { BuildTable } from '../db/schema.ts';

/** Records a sealed build. Builds never change, so one that is known stays as it is, but for what it takes on disk. */
export async function upsertBuild(db: Database, build: Insertable<BuildTable>): Promise<void> {
  await db
    .insertInto('builds')
    .values(build)
    .onConflict((conflict) => conflict.column('id').doUpdateSet({ stored_bytes: build.stored_bytes }))
    .execute();
}

/** Forgets builds that no sandbox, template or other build needs, whole chains at a time. */
export async function pruneBuilds(db: Database): Promise<void> {
  await sql`
    with recursive needed(id) as (
      select build_id from sandboxes where build_id is not null
      union select build_id from templates where build_id is not null
      union select builds.parent_id from builds join needed on builds.id = needed.id
        where builds.parent_id is not null
    )
    delete from builds where id not in (select id from needed)
      and created_at < now() - interval '1 hour'`.execute(db);
}
