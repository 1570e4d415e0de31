/** Opens the database and turns its outages into errors that a caller can act on. */
import { ThawError } from '@thaw/api';
import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import type { Logger } from 'pino';
import type { Schema } from './schema.ts';

export type Database = Kysely<Schema>;

const CONNECT_TIMEOUT_MS = 5_000;
const STATEMENT_TIMEOUT_MS = 15_000;
const RETRY_FOR_MS = 20_000;

/** `url` is a PostgreSQL URL; a socket directory is given as `postgres:///thaw?host=/run/thaw/postgres`. */
export function connectDatabase(url: string, log: Logger): Database {
  const pool = new pg.Pool({
    connectionString: url,
    max: 16,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    application_name: 'thaw-control-plane',
  });
  // An idle connection that breaks is replaced by the pool; without a listener it would end the process.
  pool.on('error', (error) => log.warn({ err: error }, 'a database connection was lost'));
  // So does one that breaks while it is lent out, between the statements of a transaction: its next one fails.
  pool.on('connect', (client) => client.on('error', () => {}));
  return new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) });
}

const OUTAGE_CODES = new Set(['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT']);

/** True for errors that mean the database is away, not that a statement was wrong. */
export function isOutage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  // Class 08: connection exceptions; 57P01-57P03: server shutting down, crashed, starting; 53300: too many clients.
  if (OUTAGE_CODES.has(code) || code.startsWith('08') || /^57P0[123]$/.test(code) || code === '53300')
    return true;
  return /connection terminated|is not queryable|timeout exceeded when trying to connect|connection timeout/i.test(
    error.message,
  );
}

/** True for errors that mean that a row of that name or id is there already. */
export function isTaken(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '23505';
}

export function asDatabaseError(error: unknown): unknown {
  if (!isOutage(error)) return error;
  return new ThawError('unavailable', 'the database cannot be reached, try again', { cause: error });
}

/**
 * Runs `action` again while the database is away, up to `forMs`. For writes that record what a host has already
 * done: giving up at once would leave the row behind the truth.
 */
export async function throughOutage<T>(action: () => Promise<T>, forMs = RETRY_FOR_MS): Promise<T> {
  const deadline = performance.now() + forMs;
  for (let delayMs = 50; ; delayMs = Math.min(delayMs * 2, 1000)) {
    try {
      return await action();
    } catch (error) {
      if (!isOutage(error) || performance.now() + delayMs > deadline) throw asDatabaseError(error);
      await new Promise((resolve) => setTimeout(resolve, delayMs));
    }
  }
}

export async function pingDatabase(db: Database): Promise<void> {
  try {
    await sql`select 1`.execute(db);
  } catch (error) {
    throw new ThawError('unavailable', 'the database does not answer', { cause: error });
  }
}
