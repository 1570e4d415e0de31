/** One real database for many control planes: each use waits at a gate, and is counted while it is under way. */
import {
  type DatabaseConnection,
  type Driver,
  Kysely,
  PostgresAdapter,
  PostgresDialect,
  PostgresDriver,
  type QueryResult,
} from 'kysely';
import type pg from 'pg';
import type { Database } from '../../packages/control-plane/src/db/connect.ts';
import type { Schema } from '../../packages/control-plane/src/db/schema.ts';
import type { Gate, Scheduler } from './scheduler.ts';

class CountedConnection implements DatabaseConnection {
  readonly real: DatabaseConnection;
  readonly #scheduler: Scheduler;

  constructor(real: DatabaseConnection, scheduler: Scheduler) {
    this.real = real;
    this.#scheduler = scheduler;
  }

  executeQuery<R>(query: Parameters<DatabaseConnection['executeQuery']>[0]): Promise<QueryResult<R>> {
    return this.#scheduler.during(() => this.real.executeQuery<R>(query));
  }

  streamQuery<R>(
    ...args: Parameters<DatabaseConnection['streamQuery']>
  ): AsyncIterableIterator<QueryResult<R>> {
    return this.real.streamQuery<R>(...args);
  }
}

class GatedDriver implements Driver {
  readonly #real: Driver;
  readonly #scheduler: Scheduler;
  readonly #gate: Gate;

  constructor(pool: pg.Pool, scheduler: Scheduler, gate: Gate) {
    this.#real = new PostgresDriver({ pool });
    this.#scheduler = scheduler;
    this.#gate = gate;
  }

  async init(): Promise<void> {
    await this.#real.init();
  }

  async acquireConnection(): Promise<DatabaseConnection> {
    await this.#gate('db');
    const real = await this.#scheduler.during(() => this.#real.acquireConnection());
    return new CountedConnection(real, this.#scheduler);
  }

  beginTransaction(connection: DatabaseConnection, ...rest: [Parameters<Driver['beginTransaction']>[1]]) {
    return this.#scheduler.during(() => this.#real.beginTransaction(real(connection), ...rest));
  }

  commitTransaction(connection: DatabaseConnection) {
    return this.#scheduler.during(() => this.#real.commitTransaction(real(connection)));
  }

  rollbackTransaction(connection: DatabaseConnection) {
    return this.#scheduler.during(() => this.#real.rollbackTransaction(real(connection)));
  }

  releaseConnection(connection: DatabaseConnection) {
    return this.#real.releaseConnection(real(connection));
  }

  /** The pool outlives the control plane. */
  async destroy(): Promise<void> {}
}

function real(connection: DatabaseConnection): DatabaseConnection {
  return (connection as CountedConnection).real;
}

export function gatedDatabase(pool: pg.Pool, scheduler: Scheduler, gate: Gate): Database {
  const dialect = new PostgresDialect({ pool });
  return new Kysely<Schema>({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => new GatedDriver(pool, scheduler, gate),
      createIntrospector: (db) => dialect.createIntrospector(db),
      createQueryCompiler: () => dialect.createQueryCompiler(),
    },
  });
}

/** What the control plane takes for a database that is away. */
export function databaseOutage(): Error {
  return Object.assign(new Error('a test took the database away'), { code: 'ECONNREFUSED' });
}
