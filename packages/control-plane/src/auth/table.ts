import type { Insertable, Selectable } from 'kysely';
import type { Database } from '../db/connect.ts';
import type { ApiKeyTable } from '../db/schema.ts';

export async function insertKey(db: Database, key: Insertable<ApiKeyTable>): Promise<void> {
  await db
    .insertInto('api_keys')
    .values(key)
    .onConflict((conflict) => conflict.column('hash').doNothing())
    .execute();
}

export function findKey(db: Database, hash: string): Promise<Selectable<ApiKeyTable> | undefined> {
  return db.selectFrom('api_keys').selectAll().where('hash', '=', hash).executeTakeFirst();
}

export async function countKeys(db: Database, teamId: string): Promise<number> {
  const row = await db
    .selectFrom('api_keys')
    .select((select) => select.fn.countAll().as('count'))
    .where('team_id', '=', teamId)
    .executeTakeFirstOrThrow();
  return Number(row.count);
}
