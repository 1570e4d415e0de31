import type { TemplateType } from '@thaw/api';
import { type Insertable, type Selectable, type SelectQueryBuilder, sql } from 'kysely';
import type { Database } from '../db/connect.ts';
import type { Schema, TemplateTable } from '../db/schema.ts';
import type { Cursor } from '../sandbox/table.ts';
import { baseOf } from './name.ts';

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

/** By name or id, with a tag if not the default one is meant; a base template wins over a snapshot of the same name. */
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

const templateId = sql<string>`split_part(templates.id, ':', 1)`;

/** All tags of the template with that name or id, newest first. */
export async function findTags(db: Database, teamId: string, nameOrId: string): Promise<TemplateRow[]> {
  const base = await visible(db, teamId)
    .where((where) =>
      where.or([
        where(sql<string>`split_part(templates.name, ':', 1)`, '=', nameOrId),
        where(templateId, '=', nameOrId),
      ]),
    )
    .orderBy('templates.type')
    .executeTakeFirst();
  return base === undefined ? [] : listTags(db, teamId, [baseOf(base.id)]);
}

/** All tags of the templates with these ids, newest first. */
export function listTags(db: Database, teamId: string, ids: readonly string[]): Promise<TemplateRow[]> {
  if (ids.length === 0) return Promise.resolve([]);
  return visible(db, teamId)
    .where(templateId, 'in', [...ids])
    .orderBy('templates.created_at', 'desc')
    .orderBy('templates.id', 'desc')
    .execute();
}

export interface TemplateFilter {
  type?: TemplateType | undefined;
  sourceSandboxId?: string | undefined;
  /** Rows with exactly these ids. */
  ids?: readonly string[] | undefined;
}

/** Newest first. */
export function listTemplates(
  db: Database,
  teamId: string,
  { type, sourceSandboxId, ids }: TemplateFilter,
  limit: number,
  after?: Cursor,
): Promise<TemplateRow[]> {
  if (ids?.length === 0) return Promise.resolve([]);
  let query = visible(db, teamId);
  if (type) query = query.where('templates.type', '=', type);
  if (sourceSandboxId) query = query.where('templates.source_sandbox_id', '=', sourceSandboxId);
  if (ids) query = query.where('templates.id', 'in', [...ids]);
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
  const { id: _, team_id: __, created_at: ___, ...fields } = template;
  // The host counts in seconds; a row of the same build was written by who knew better.
  const createdAt = sql<Date>`case when templates.build_id is not distinct from excluded.build_id
    then templates.created_at else excluded.created_at end`;
  await db
    .insertInto('templates')
    .values(template)
    .onConflict((conflict) => conflict.column('id').doUpdateSet({ ...fields, created_at: createdAt }))
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

/** How many sandboxes were made of a template, as far as their rows are kept, and when the last one was. */
export interface Spawns {
  count: number;
  last: Date | undefined;
}

/** By template, all tags together. */
export async function countSpawns(db: Database, teamId: string): Promise<Map<string, Spawns>> {
  const id = sql<string>`split_part(template_id, ':', 1)`;
  const rows = await db
    .selectFrom('sandboxes')
    .select((select) => [
      id.as('id'),
      select.fn.countAll().as('count'),
      select.fn.max('created_at').as('last'),
    ])
    .where('team_id', '=', teamId)
    .groupBy(id)
    .execute();
  return new Map(rows.map(({ id, count, last }) => [id, { count: Number(count), last }]));
}
