import assert from 'node:assert/strict';
import { it } from 'node:test';
import { sql } from 'kysely';
import { pino } from 'pino';
import { connectDatabase, isOutage } from './connect.ts';
import { ThrowawayCluster } from './throwaway.ts';

it('a connection that breaks between the statements of a transaction fails that one, not the process', async () => {
  await using cluster = await ThrowawayCluster.start();
  const url = await cluster.database();
  const [db, other] = [1, 2].map(() => connectDatabase(url, pino({ level: 'silent' })));
  try {
    const transaction = db!.transaction().execute(async (own) => {
      const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(own);
      await sql`select pg_terminate_backend(${rows[0]!.pid}, 10000)`.execute(other!);
      // The news of it arrive while nothing is asked.
      await new Promise((resolve) => setTimeout(resolve, 100));
      await sql`select 1`.execute(own);
    });
    await assert.rejects(transaction, (error) => isOutage(error));
    await sql`select 1`.execute(db!);
  } finally {
    await db!.destroy();
    await other!.destroy();
  }
});
