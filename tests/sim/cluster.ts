/** A real PostgreSQL for many runs one after another, each in the same emptied database. */
import pg from 'pg';
import { pino } from 'pino';
import { makeFirstKey } from '../../packages/control-plane/src/auth/key.ts';
import { connectDatabase } from '../../packages/control-plane/src/db/connect.ts';
import { migrate } from '../../packages/control-plane/src/db/migrations.ts';
import { ThrowawayCluster } from '../../packages/control-plane/src/db/throwaway.ts';

export async function withDatabase(work: (pool: pg.Pool, key: string) => Promise<void>): Promise<void> {
  await using cluster = await ThrowawayCluster.start();
  const url = await cluster.database();
  const db = connectDatabase(url, pino({ level: 'silent' }));
  await migrate(db);
  const key = (await makeFirstKey(db))!;
  await db.destroy();
  const pool = new pg.Pool({ connectionString: url, max: 32 });
  // The server may end before the pool's last connection has.
  pool.on('error', () => {});
  try {
    await work(pool, key);
  } finally {
    await pool.end();
  }
}
