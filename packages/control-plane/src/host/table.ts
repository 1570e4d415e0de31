import type { Database } from '../db/connect.ts';

/** Writes down whose host it is, if nobody did yet. Answers whose it is now. */
export async function claimHostRow(db: Database, id: string, identity: string): Promise<string> {
  await db
    .insertInto('hosts')
    .values({ id, identity })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .execute();
  const row = await db.selectFrom('hosts').select('identity').where('id', '=', id).executeTakeFirstOrThrow();
  return row.identity;
}

export async function takeHostRow(db: Database, id: string, identity: string): Promise<void> {
  await db
    .insertInto('hosts')
    .values({ id, identity })
    .onConflict((conflict) => conflict.column('id').doUpdateSet({ identity }))
    .execute();
}
