import { type Insertable, type RawBuilder, type Selectable, type SelectQueryBuilder, sql } from 'kysely';
import type { Database } from '../db/connect.ts';
import type { AuditTable, Schema } from '../db/schema.ts';
import { newSortedId } from '../db/sorted-id.ts';
import { ITSELF } from '../event/history.ts';
import type { Cursor } from '../sandbox/table.ts';

export type AuditRow = Selectable<AuditTable>;
export type NewLine = Insertable<AuditTable>;

/** What is written already stays as it is: a write whose answer was lost may come again. */
export async function insertLines(db: Database, lines: readonly NewLine[]): Promise<void> {
  await db
    .insertInto('audit')
    .values([...lines])
    .onConflict((conflict) => conflict.column('id').doNothing())
    .execute();
}

/** Of what the program on the host did, without a request. */
export function recordByItself(
  db: Database,
  what: Pick<NewLine, 'verb' | 'target' | 'team_id'>,
): Promise<void> {
  const now = { id: newSortedId('au'), created_at: new Date() };
  return insertLines(db, [
    {
      ...{ ...now, ...what, actor: ITSELF, outcome: 'done' },
      ...{ key_id: null, status: null, address: null, request_id: null },
    },
  ]);
}

export interface AuditFilter {
  teamId?: string | undefined;
  /** An id, or the first characters. */
  key?: string | undefined;
  verb?: string | undefined;
  target?: string | undefined;
  outcome?: string | undefined;
  since?: Date | undefined;
  until?: Date | undefined;
}

type Query = SelectQueryBuilder<Schema, 'audit', AuditRow>;

/** Newest first. */
export function listLines(
  db: Database,
  filter: AuditFilter,
  limit: number,
  after?: Cursor,
): Promise<AuditRow[]> {
  const { teamId, key, verb, target, outcome, since, until } = filter;
  let query: Query = db.selectFrom('audit').selectAll();
  if (teamId !== undefined) query = query.where('team_id', '=', teamId);
  if (key !== undefined)
    query = query.where((where) => where.or([where('key_id', '=', key), where('actor', '=', key)]));
  if (verb !== undefined) query = query.where('verb', '=', verb);
  if (target !== undefined)
    query = query.where(sql<boolean>`${target}::text = any(string_to_array(target, ' '))`);
  if (outcome === 'failed') query = query.where('outcome', '<>', 'done');
  else if (outcome !== undefined) query = query.where('outcome', '=', outcome);
  if (since) query = query.where('created_at', '>=', since);
  if (until) query = query.where('created_at', '<', until);
  if (after) query = query.where(sql<boolean>`(created_at, id) < (${after.createdAt}, ${after.id})`);
  return query.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit).execute();
}

/** Of a statement that must end in time. */
const PURGED_AT_ONCE = 10_000;

/**
 * Forgets what is older than `sec`, and of each team, as of requests without a key, what is more than the newest `most`:
 * nobody pushes out the lines of another.
 */
export async function purgeLines(db: Database, sec: number, most: number): Promise<void> {
  await purgeWhere(db, sql<boolean>`created_at < now() - ${sec} * interval '1 second'`);
  const { rows } = await sql<{ team_id: string | null }>`
    select team_id from audit group by team_id having count(*) > ${most}`.execute(db);
  for (const { team_id } of rows) {
    const ofTeam = sql<boolean>`${team_id === null ? sql`team_id is null` : sql`team_id = ${team_id}`}`;
    const { rows: beyond } = await sql<{ created_at: Date; id: string }>`
      select created_at, id from audit where ${ofTeam}
      order by created_at desc, id desc offset ${most} limit 1`.execute(db);
    for (const { created_at, id } of beyond)
      await purgeWhere(db, sql<boolean>`${ofTeam} and (created_at, id) <= (${created_at}, ${id})`);
  }
}

async function purgeWhere(db: Database, condition: RawBuilder<boolean>): Promise<void> {
  for (;;) {
    const { numDeletedRows } = await db
      .deleteFrom('audit')
      .where('id', 'in', (query) =>
        query.selectFrom('audit').select('id').where(condition).limit(PURGED_AT_ONCE),
      )
      .executeTakeFirst();
    if (Number(numDeletedRows) < PURGED_AT_ONCE) return;
  }
}
