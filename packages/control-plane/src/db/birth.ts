import type { Database } from './connect.ts';

/** When this database was made: its first team came with it. */
export async function databaseBirth(db: Database): Promise<Date> {
  const { made } = await db
    .selectFrom('teams')
    .select(({ fn }) => fn.min('created_at').as('made'))
    .executeTakeFirstOrThrow();
  return new Date(made);
}
