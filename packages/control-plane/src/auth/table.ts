import type { QuotaField, Usage } from '@thaw/api';
import { type Insertable, type Selectable, sql, type Updateable } from 'kysely';
import type { Database } from '../db/connect.ts';
import type { ApiKeyTable } from '../db/schema.ts';

export type ApiKeyRow = Selectable<ApiKeyTable>;

/** False if the key is known: it stays as it is, also if it was revoked. */
export async function insertKey(db: Database, key: Insertable<ApiKeyTable>): Promise<boolean> {
  const { numInsertedOrUpdatedRows } = await db
    .insertInto('api_keys')
    .values(key)
    .onConflict((conflict) => conflict.column('hash').doNothing())
    .executeTakeFirstOrThrow();
  return (numInsertedOrUpdatedRows ?? 0n) > 0n;
}

/** Also a revoked one. */
export function findKeyByHash(db: Database, hash: string): Promise<ApiKeyRow | undefined> {
  return db.selectFrom('api_keys').selectAll().where('hash', '=', hash).executeTakeFirst();
}

export function findKey(db: Database, teamId: string, id: string): Promise<ApiKeyRow | undefined> {
  return db
    .selectFrom('api_keys')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('id', '=', id)
    .executeTakeFirst();
}

/** Those that were not revoked, oldest first. */
export function listKeys(db: Database, teamId: string): Promise<ApiKeyRow[]> {
  return db
    .selectFrom('api_keys')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('revoked_at', 'is', null)
    .orderBy('created_at')
    .orderBy('id')
    .execute();
}

export async function countKeys(db: Database, teamId: string): Promise<number> {
  const row = await db
    .selectFrom('api_keys')
    .select((select) => select.fn.countAll().as('count'))
    .where('team_id', '=', teamId)
    .where('revoked_at', 'is', null)
    .executeTakeFirstOrThrow();
  return Number(row.count);
}

export type KeyPatch = Pick<
  Updateable<ApiKeyTable>,
  'name' | 'max_sandboxes' | 'max_vcpus' | 'max_memory_mb' | 'max_disk_mb'
>;

/** Undefined if the team has no such key, or has revoked it. */
export function updateKey(
  db: Database,
  teamId: string,
  id: string,
  patch: KeyPatch,
): Promise<ApiKeyRow | undefined> {
  return db
    .updateTable('api_keys')
    .set({ ...patch, id })
    .where('team_id', '=', teamId)
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .returningAll()
    .executeTakeFirst();
}

/**
 * Revokes a key unless it is the last one of the team that may administrate, or the last operator's. Whoever calls it has
 * locked the team. True if the key is revoked by this call.
 */
export async function revokeKeyRow(db: Database, teamId: string, id: string): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('api_keys')
    .set({ revoked_at: sql<Date>`now()` })
    .where('team_id', '=', teamId)
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .where((where) => {
      const spare = (right: 'admin' | 'operator') =>
        where.or([
          where(right, '=', false),
          where.exists(
            where
              .selectFrom('api_keys as other')
              .select('other.id')
              .where('other.team_id', '=', teamId)
              .where('other.id', '<>', id)
              .where(`other.${right}`, '=', true)
              .where('other.revoked_at', 'is', null),
          ),
        ]);
      return where.and([spare('admin'), spare('operator')]);
    })
    .executeTakeFirstOrThrow();
  return numUpdatedRows > 0n;
}

const NOTHING: Usage = { sandboxes: 0, vcpus: 0, memory_mb: 0, disk_mb: 0 };

/** What a team's sandboxes take now: all of it, and by key. Paused and broken ones have no CPU and no memory. */
export async function measureUsage(
  db: Database,
  teamId: string,
): Promise<{ team: Usage; byKey: ReadonlyMap<string | null, Usage> }> {
  const alive = sql<boolean>`status not in ('paused', 'error')`;
  const rows = await db
    .selectFrom('sandboxes')
    .select(['key_id'])
    .select(({ fn }) => [
      fn.countAll().as('sandboxes'),
      fn.sum('vcpus').filterWhere(alive).as('vcpus'),
      fn.sum('memory_mb').filterWhere(alive).as('memory_mb'),
      fn.sum('disk_mb').as('disk_mb'),
    ])
    .where('team_id', '=', teamId)
    .where('status', '<>', 'stopped')
    .groupBy('key_id')
    .execute();
  const team = { ...NOTHING };
  const byKey = new Map<string | null, Usage>();
  for (const { key_id, ...sums } of rows) {
    const usage = { ...NOTHING };
    for (const field of Object.keys(NOTHING) as QuotaField[]) {
      usage[field] = Number(sums[field] ?? 0);
      team[field] += usage[field];
    }
    byKey.set(key_id, usage);
  }
  return { team, byKey };
}
