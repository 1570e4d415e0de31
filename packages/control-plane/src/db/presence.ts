/**
 * Which control planes of this database are alive. Each holds an advisory lock in a session of its own: the database
 * gives it back when the process dies, however it dies. A pooler between them must keep sessions.
 */
import { randomInt } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import pg from 'pg';
import type { Logger } from 'pino';
import type { Schema } from './schema.ts';

/** The first half of our locks' keys: "thaw". */
const LOCK_CLASS = 0x74686177;
const AGAIN_AFTER_MS = 200;

export const newPlaneId = (): number => randomInt(1, 2 ** 31 - 1);

export class Presence implements AsyncDisposable {
  readonly #url: string;
  readonly #id: number;
  readonly #log: Logger;
  #client: pg.Client | undefined;
  #again: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(url: string, id: number, log: Logger) {
    this.#url = url;
    this.#id = id;
    this.#log = log;
  }

  /** Resolves when others can see it. A session that breaks is opened again until it is disposed of. */
  static async announce(url: string, id: number, log: Logger): Promise<Presence> {
    const presence = new Presence(url, id, log);
    await presence.#open();
    return presence;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#again);
    await this.#client?.end().catch(() => {});
  }

  async #open(): Promise<void> {
    const client = new pg.Client({
      connectionString: this.#url,
      connectionTimeoutMillis: 5_000,
      keepAlive: true,
      application_name: 'thaw-presence',
    });
    let broken = false;
    client.on('error', () => {});
    client.on('end', () => {
      broken = true;
      if (this.#client === client) this.#retry();
    });
    try {
      await client.connect();
      // A machine that vanished is noticed by the server within half a minute.
      await client.query(
        'set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3',
      );
      await client.query('select pg_advisory_lock($1, $2)', [LOCK_CLASS, this.#id]);
    } catch (error) {
      await client.end().catch(() => {});
      throw error;
    }
    this.#client = client;
    if (broken) this.#retry();
    if (this.#closed) await client.end().catch(() => {});
  }

  #retry(): void {
    if (this.#closed) return;
    this.#log.warn('other control planes do not see this one until the database is back');
    const again = () => {
      this.#open().catch(() => {
        if (!this.#closed) this.#again = setTimeout(again, AGAIN_AFTER_MS);
      });
    };
    this.#again = setTimeout(again, AGAIN_AFTER_MS);
  }
}

/** The ids of all control planes that are alive now. */
export async function livePlanes(db: Kysely<Schema>): Promise<ReadonlySet<number>> {
  const { rows } = await sql<{ id: string | number }>`
    select objid::bigint as id from pg_locks
    where locktype = 'advisory' and classid = ${LOCK_CLASS}::oid and objsubid = 2 and granted
      and database = (select oid from pg_database where datname = current_database())`.execute(db);
  return new Set(rows.map(({ id }) => Number(id)));
}
