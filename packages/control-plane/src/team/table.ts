import { TEAM_ID } from '@thaw/api';
import { type Insertable, type Selectable, sql, type Updateable } from 'kysely';
import type { Database } from '../db/connect.ts';
import type { TeamTable } from '../db/schema.ts';

export type TeamRow = Selectable<TeamTable>;

export async function insertTeam(db: Database, team: Insertable<TeamTable>): Promise<void> {
  await db.insertInto('teams').values(team).execute();
}

export function findTeam(db: Database, teamId: string): Promise<TeamRow | undefined> {
  return db.selectFrom('teams').selectAll().where('id', '=', teamId).executeTakeFirst();
}

/** What looks like an id is one. */
export function findTeamByName(db: Database, nameOrId: string): Promise<TeamRow | undefined> {
  const column = TEAM_ID.test(nameOrId) ? 'id' : 'name';
  return db.selectFrom('teams').selectAll().where(column, '=', nameOrId).executeTakeFirst();
}

/** Undefined if there is no such team. Inside a transaction others that lock it wait until its end. */
export function lockTeam(db: Database, teamId: string): Promise<TeamRow | undefined> {
  return db.selectFrom('teams').selectAll().where('id', '=', teamId).forNoKeyUpdate().executeTakeFirst();
}

/** Oldest first. */
export function listTeams(db: Database, limit: number): Promise<TeamRow[]> {
  return db.selectFrom('teams').selectAll().orderBy('created_at').orderBy('id').limit(limit).execute();
}

export async function countTeams(db: Database): Promise<number> {
  const row = await db
    .selectFrom('teams')
    .select((select) => select.fn.countAll().as('count'))
    .executeTakeFirstOrThrow();
  return Number(row.count);
}

export type TeamPatch = Omit<Updateable<TeamTable>, 'id' | 'created_at' | 'closing_at'>;

/** Undefined if there is no such team. */
export function updateTeam(db: Database, teamId: string, patch: TeamPatch): Promise<TeamRow | undefined> {
  return db
    .updateTable('teams')
    .set({ ...patch, id: teamId })
    .where('id', '=', teamId)
    .returningAll()
    .executeTakeFirst();
}

/** What a team has that keeps it from being deleted. */
export async function countBelongings(
  db: Database,
  teamId: string,
): Promise<{ sandboxes: number; templates: number }> {
  const { count: sandboxes } = await db
    .selectFrom('sandboxes')
    .select((select) => select.fn.countAll().as('count'))
    .where('team_id', '=', teamId)
    .where('status', '<>', 'stopped')
    .executeTakeFirstOrThrow();
  const { count: templates } = await db
    .selectFrom('templates')
    .select((select) => select.fn.countAll().as('count'))
    .where('team_id', '=', teamId)
    .executeTakeFirstOrThrow();
  return { sandboxes: Number(sandboxes), templates: Number(templates) };
}

/** Nothing is made for the team from now on, and its keys are revoked. Answers the ids of all of its keys. */
export async function closeTeam(db: Database, teamId: string): Promise<string[]> {
  await db
    .updateTable('teams')
    .set({ closing_at: sql<Date>`coalesce(closing_at, now())` })
    .where('id', '=', teamId)
    .execute();
  const keys = await db
    .updateTable('api_keys')
    .set({ revoked_at: sql<Date>`coalesce(revoked_at, now())` })
    .where('team_id', '=', teamId)
    .returning('id')
    .execute();
  return keys.map(({ id }) => id);
}

/** What is not stopped of it, oldest first. */
export async function listSandboxIds(db: Database, teamId: string): Promise<string[]> {
  const rows = await db
    .selectFrom('sandboxes')
    .select('id')
    .where('team_id', '=', teamId)
    .where('status', '<>', 'stopped')
    .orderBy('created_at')
    .execute();
  return rows.map(({ id }) => id);
}

export async function listTemplateIds(db: Database, teamId: string): Promise<string[]> {
  const rows = await db.selectFrom('templates').select('id').where('team_id', '=', teamId).execute();
  return rows.map(({ id }) => id);
}

/** The team with its keys and with its sandboxes that are stopped. Whoever calls it has seen that there is nothing else. */
export async function removeTeam(db: Database, teamId: string): Promise<void> {
  await db.deleteFrom('sandboxes').where('team_id', '=', teamId).where('status', '=', 'stopped').execute();
  await db.deleteFrom('template_owners').where('team_id', '=', teamId).execute();
  await db.deleteFrom('api_keys').where('team_id', '=', teamId).execute();
  await db.deleteFrom('teams').where('id', '=', teamId).execute();
}
