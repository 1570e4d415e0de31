import type { Metadata, SandboxStatus } from '@thaw/api';
import {
  type Insertable,
  type RawBuilder,
  type Selectable,
  type SelectQueryBuilder,
  sql,
  type Updateable,
} from 'kysely';
import type { Database } from '../db/connect.ts';
import type { SandboxTable, Schema } from '../db/schema.ts';
import { watchersOf } from './moved.ts';

export type SandboxRow = Selectable<SandboxTable> & {
  build_generation: number | null;
  build_stored_bytes: string | number | null;
};
export type SandboxPatch = Omit<
  Updateable<SandboxTable>,
  'id' | 'team_id' | 'revision' | 'last_updated' | 'end_at'
> & { end_at?: Date | null | RawBuilder<Date> };

const buildColumns = [
  'builds.generation as build_generation',
  'builds.stored_bytes as build_stored_bytes',
] as const;

/** Nothing of it was sealed yet. */
export async function insertSandbox(db: Database, row: Insertable<SandboxTable>): Promise<SandboxRow> {
  const inserted = await db.insertInto('sandboxes').values(row).returningAll().executeTakeFirstOrThrow();
  return { ...inserted, build_generation: null, build_stored_bytes: null };
}

function select(db: Database): SelectQueryBuilder<Schema, 'sandboxes' | 'builds', SandboxRow> {
  return db
    .selectFrom('sandboxes')
    .leftJoin('builds', 'builds.id', 'sandboxes.build_id')
    .selectAll('sandboxes')
    .select(buildColumns) as SelectQueryBuilder<Schema, 'sandboxes' | 'builds', SandboxRow>;
}

export function findSandbox(db: Database, teamId: string, id: string): Promise<SandboxRow | undefined> {
  return select(db).where('sandboxes.team_id', '=', teamId).where('sandboxes.id', '=', id).executeTakeFirst();
}

/** Those of the ids that the team has, in any order and status. */
export function findSandboxes(db: Database, teamId: string, ids: readonly string[]): Promise<SandboxRow[]> {
  return select(db)
    .where('sandboxes.team_id', '=', teamId)
    .where('sandboxes.id', 'in', [...ids])
    .execute();
}

export interface SandboxFilter {
  status?: SandboxStatus[] | undefined;
  template?: string | undefined;
  metadata?: Metadata | undefined;
}

export interface Cursor {
  createdAt: Date;
  id: string;
}

/** Newest first; without a status everything but `stopped`. */
export function listSandboxes(
  db: Database,
  teamId: string,
  filter: SandboxFilter,
  limit: number,
  after?: Cursor,
): Promise<SandboxRow[]> {
  let query = select(db).where('sandboxes.team_id', '=', teamId);
  query = filter.status
    ? query.where('sandboxes.status', 'in', filter.status)
    : query.where('sandboxes.status', '<>', 'stopped');
  if (filter.template) query = query.where('sandboxes.template', '=', filter.template);
  if (filter.metadata) query = query.where(matches(filter.metadata));
  if (after) {
    query = query.where(
      sql<boolean>`(sandboxes.created_at, sandboxes.id) < (${after.createdAt}, ${after.id})`,
    );
  }
  return query.orderBy('sandboxes.created_at', 'desc').orderBy('sandboxes.id', 'desc').limit(limit).execute();
}

const lastStart = sql<Date>`coalesce(sandboxes.resumed_at, sandboxes.started_at)`;

export interface StartFilter {
  status: readonly SandboxStatus[];
  startedAfter?: Date | undefined;
  /** Id or name. */
  template?: string | undefined;
  metadata?: Metadata | undefined;
  order: 'asc' | 'desc';
}

/** By the time of their last start; those that never ran have none and are left out. */
export function listByStart(
  db: Database,
  teamId: string,
  { status, startedAfter, template, metadata, order }: StartFilter,
  limit: number,
  after?: { startedAt: Date; id: string },
): Promise<SandboxRow[]> {
  let query = select(db)
    .where('sandboxes.team_id', '=', teamId)
    .where('sandboxes.status', 'in', [...status])
    .where('sandboxes.started_at', 'is not', null);
  if (startedAfter) query = query.where(sql<boolean>`${lastStart} >= ${startedAfter}`);
  if (template !== undefined) {
    // Behind a colon stands the tag.
    query = query.where(
      sql<boolean>`${template} in (split_part(sandboxes.template_id, ':', 1), split_part(sandboxes.template, ':', 1))`,
    );
  }
  if (metadata) query = query.where(matches(metadata));
  if (after) {
    const comparison = order === 'asc' ? sql`>` : sql`<`;
    query = query.where(
      sql<boolean>`(${lastStart}, sandboxes.id) ${comparison} (${after.startedAt}, ${after.id})`,
    );
  }
  return query.orderBy(lastStart, order).orderBy('sandboxes.id', order).limit(limit).execute();
}

function matches(metadata: Metadata) {
  return sql<boolean>`sandboxes.metadata @> ${JSON.stringify(metadata)}::jsonb`;
}

/** The row that a create with this key wrote. */
export function findByKey(db: Database, teamId: string, key: string): Promise<SandboxRow | undefined> {
  return select(db)
    .where('sandboxes.team_id', '=', teamId)
    .where('sandboxes.idempotency_key', '=', key)
    .executeTakeFirst();
}

/** For `end_at`: `date`, unless the end is later already. */
export function notBefore(date: Date): RawBuilder<Date> {
  return sql<Date>`greatest(end_at, ${date}::timestamptz)`;
}

/**
 * One guarded transition: it happens only from one of the statuses `from` (and, with `revision`, only if nothing
 * else happened since). Undefined if the guard did not hold.
 */
export async function moveSandbox(
  db: Database,
  id: string,
  from: readonly SandboxStatus[],
  patch: SandboxPatch,
  revision?: number,
): Promise<SandboxRow | undefined> {
  const moved = await db
    .with('moved', (cte) => {
      const update = cte
        .updateTable('sandboxes')
        .set({ ...patch, last_updated: sql<Date>`now()` })
        .$if(patch.status !== undefined, (set) =>
          set.set({
            status_since: sql<Date>`case when status = ${patch.status} then status_since else now() end`,
          }),
        )
        .set((row) => ({ revision: row('revision', '+', 1) }))
        .where('id', '=', id)
        .where('status', 'in', [...from]);
      return (revision === undefined ? update : update.where('revision', '=', revision)).returningAll();
    })
    .selectFrom('moved')
    .leftJoin('builds', 'builds.id', 'moved.build_id')
    .selectAll('moved')
    .select(buildColumns)
    .executeTakeFirst();
  if (moved !== undefined) for (const watcher of watchersOf(db)) watcher.moved(moved);
  return moved;
}

export async function removeSandbox(db: Database, id: string, from: readonly SandboxStatus[]): Promise<void> {
  const { numDeletedRows } = await db
    .deleteFrom('sandboxes')
    .where('id', '=', id)
    .where('status', 'in', [...from])
    .executeTakeFirst();
  if (numDeletedRows > 0n) for (const watcher of watchersOf(db)) watcher.removed(id);
}

/** Every row of a host that is not stopped. */
export function listLiveSandboxes(db: Database, hostId: string): Promise<SandboxRow[]> {
  return select(db)
    .where('sandboxes.host_id', '=', hostId)
    .where('sandboxes.status', '<>', 'stopped')
    .execute();
}

/** Running ones whose time is over, by the database's clock. */
export function listExpired(db: Database, hostId: string): Promise<SandboxRow[]> {
  return select(db)
    .where('sandboxes.host_id', '=', hostId)
    .where('sandboxes.status', '=', 'running')
    .where(
      sql<boolean>`(sandboxes.end_at <= now() or (sandboxes.timeout_sec > 0
        and sandboxes.last_active_at + sandboxes.timeout_sec * interval '1 second' <= now()))`,
    )
    .execute();
}

/** Those that have been in `status` for longer than `sec`. */
export function listSince(
  db: Database,
  hostId: string,
  status: SandboxStatus,
  sec: number,
): Promise<SandboxRow[]> {
  return select(db)
    .where('sandboxes.host_id', '=', hostId)
    .where('sandboxes.status', '=', status)
    .where(sql<boolean>`sandboxes.status_since < now() - ${sec} * interval '1 second'`)
    .execute();
}

/** Forgets sandboxes that were stopped longer ago than `sec`. Answers how many. */
export async function purgeStopped(db: Database, hostId: string, sec: number): Promise<number> {
  const { numDeletedRows } = await db
    .deleteFrom('sandboxes')
    .where('host_id', '=', hostId)
    .where('status', '=', 'stopped')
    .where(sql<boolean>`status_since < now() - ${sec} * interval '1 second'`)
    .executeTakeFirst();
  return Number(numDeletedRows);
}

/** Which of the ids have a row that is not stopped. */
export async function findLive(db: Database, ids: readonly string[]): Promise<ReadonlySet<string>> {
  if (ids.length === 0) return new Set();
  const rows = await db
    .selectFrom('sandboxes')
    .select('id')
    .where('id', 'in', [...ids])
    .where('status', '<>', 'stopped')
    .execute();
  return new Set(rows.map(({ id }) => id));
}

/** How many sandboxes made of these templates run or are paused, or are about to. */
export async function countUsers(db: Database, templateIds: readonly string[]): Promise<number> {
  const { count } = await db
    .selectFrom('sandboxes')
    .select((select) => select.fn.countAll().as('count'))
    .where('template_id', 'in', [...templateIds])
    .where('status', 'not in', ['stopping', 'stopped', 'error'])
    .executeTakeFirstOrThrow();
  return Number(count);
}

export async function touchSandboxes(db: Database, ids: readonly string[]): Promise<void> {
  await db
    .updateTable('sandboxes')
    .set({ last_active_at: sql<Date>`now()` })
    .where('id', 'in', [...ids])
    .execute();
}
