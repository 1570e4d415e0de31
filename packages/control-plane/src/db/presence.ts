/**
 * Which control planes of this database are alive. Each holds an advisory lock in a session of its own: the database
 * gives it back when the process dies, however it dies.
 */
import { randomInt } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Schema } from './schema.ts';
import { Session } from './session.ts';

/** The first half of our locks' keys: "thaw". */
const LOCK_CLASS = 0x74686177;

export const newPlaneId = (): number => randomInt(1, 2 ** 31 - 1);

/** Resolves when others can see this control plane; until what it answers is disposed of. */
export function announcePresence(url: string, id: number, log: Logger): Promise<AsyncDisposable> {
  return Session.open({
    url,
    name: 'thaw-presence',
    prepare: async (client) => {
      await client.query('select pg_advisory_lock($1, $2)', [LOCK_CLASS, id]);
    },
    onLost: () => log.warn('other control planes do not see this one until the database is back'),
  });
}

/** The ids of all control planes that are alive now. */
export async function livePlanes(db: Kysely<Schema>): Promise<ReadonlySet<number>> {
  const { rows } = await sql<{ id: string | number }>`
    select objid::bigint as id from pg_locks
    where locktype = 'advisory' and classid = ${LOCK_CLASS}::oid and objsubid = 2 and granted
      and database = (select oid from pg_database where datname = current_database())`.execute(db);
  return new Set(rows.map(({ id }) => Number(id)));
}
