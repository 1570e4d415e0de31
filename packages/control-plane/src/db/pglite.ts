/** PostgreSQL inside this process, for tests: one connection, nothing durable. */
import { PGlite } from '@electric-sql/pglite';
import { Kysely, PGliteDialect, PGliteDriver } from 'kysely';
import type { Database } from './connect.ts';
import type { Schema } from './schema.ts';

/** PGlite has one connection, and whoever has it has it alone: a transaction must not see the statements of others. */
class OneAtATime extends PGliteDriver {
  #last: Promise<void> = Promise.resolve();
  #release: (() => void) | undefined;

  override async acquireConnection() {
    const before = this.#last;
    const mine = Promise.withResolvers<void>();
    this.#last = mine.promise;
    await before;
    this.#release = mine.resolve;
    return super.acquireConnection();
  }

  override async releaseConnection(): Promise<void> {
    this.#release?.();
  }
}

/** A new, empty database. Inside a transaction only its own handle may be used: any other waits for its end. */
export function memoryDatabase(): Database {
  const pglite = new PGlite();
  const dialect = new PGliteDialect({ pglite });
  dialect.createDriver = () => new OneAtATime({ pglite });
  return new Kysely<Schema>({ dialect });
}
