import type { TemplateType } from '@thaw/api';
import { type Insertable, type Selectable, type SelectQueryBuilder, sql } from 'kysely';
import type { Database } from '../db/connect.ts';
import type { Schema, TemplateTable } from '../db/schema.ts';
import type { Cursor } from '../sandbox/table.ts';

export type TemplateRow = Selectable<TemplateTable> & {
  build_generation: number | null;
  build_stored_bytes: string | number | null;
};

function select(db: Database): SelectQueryBuilder<Schema, 'templates' | 'builds', TemplateRow> {
  return db
    .selectFrom('templates')
    .leftJoin('builds', 'builds.id', 'templates.build_id')
    .selectAll('templates')
    .select([
      'builds.generation as build_generation',
      'builds.stored_bytes as build_stored_bytes',
    ]) as SelectQueryBuilder<Schema, 'templates' | 'builds', TemplateRow>;
}

/** Team's own templates and the shared ones. */
function visible(db: Database, teamId: string) {
  return select(db).where((where) =>
    where.or([where('templates.team_id', '=', teamId), where('templates.team_id', 'is', null)]),
  );
}

/** By name or id; a base template wins over a snapshot of the same name. */
export function findTemplate(
  db: Database,
  teamId: string,
  nameOrId: string,
): Promise<TemplateRow | undefined> {
  return visible(db, teamId)
    .where((where) =>
      where.or([where('templates.name', '=', nameOrId), where('templates.id', '=', nameOrId)]),
    )
    .orderBy('templates.type')
    .executeTakeFirst();
}

export function listTemplates(
  db: Database,
  teamId: string,
  type: TemplateType | undefined,
  limit: number,
  after?: Cursor,
): Promise<TemplateRow[]> {
  let query = visible(db, teamId);
  if (type) query = query.where('templates.type', '=', type);
  if (after) {
    query = query.where(
      sql<boolean>`(templates.created_at, templates.id) < (${after.createdAt}, ${after.id})`,
    );
  }
  return query.orderBy('templates.created_at', 'desc').orderBy('templates.id', 'desc').limit(limit).execute();
}

/** Every template row, of all teams. */
export function listAllTemplates(db: Database): Promise<TemplateRow[]> {
  return select(db).execute();
}

/** Inserts the row, or brings the one with this id up to date; its team stays. */
export async function upsertTemplate(db: Database, template: Insertable<TemplateTable>): Promise<void> {
  const { id: _, team_id: __, ...fields } = template;
  await db
    .insertInto('templates')
    .values(template)
    .onConflict((conflict) => conflict.column('id').doUpdateSet(fields))
    .execute();
}

/** To be written before a host is asked to make the template: whoever finds it there can tell whose it is. */
export async function insertOwner(db: Database, templateId: string, teamId: string): Promise<void> {
  await db
    .insertInto('template_owners')
    .values({ template_id: templateId, team_id: teamId })
    .onConflict((conflict) => conflict.column('template_id').doNothing())
    .execute();
}

/** The owners of templates, by id. */
export async function listOwners(db: Database): Promise<ReadonlyMap<string, string>> {
  const rows = await db.selectFrom('template_owners').select(['template_id', 'team_id']).execute();
  return new Map(rows.map(({ template_id, team_id }) => [template_id, team_id]));
}

/** Forgets who owns what is neither in `present` nor in a row, and should have been made long ago. */
export async function pruneOwners(db: Database, present: readonly string[]): Promise<void> {
  await db
    .deleteFrom('template_owners')
    .where(sql<boolean>`created_at < now() - interval '1 hour'`)
    .where('template_id', 'not in', (query) => query.selectFrom('templates').select('id'))
    .$if(present.length > 0, (query) => query.where('template_id', 'not in', [...present]))
    .execute();
}

/** The row stays as it is otherwise. */
export async function markTemplate(db: Database, id: string, errorReason: string): Promise<void> {
  await db.updateTable('templates').set({ error_reason: errorReason }).where('id', '=', id).execute();
}

/** Deletes the row only if it still names the build it named when it was read. */
export async function removeTemplate(db: Database, id: string, buildId: string | null): Promise<void> {
  const remove = db.deleteFrom('templates').where('id', '=', id);
  await (buildId === null
    ? remove.where('build_id', 'is', null)
    : remove.where('build_id', '=', buildId)
  ).execute();
}
