/** Takes a dump into an empty database and brings it to the newest schema. */
import { ThawError } from '@thaw/api';
import { type Kysely, sql } from 'kysely';
import { z } from 'zod';
import { isOutage } from './connect.ts';
import { FORMAT, tablesInOrder, VERSION } from './dump.ts';
import { migrate } from './migrations.ts';
import type { Schema } from './schema.ts';

const Head = z.object({ format: z.literal(FORMAT), version: z.literal(VERSION), migration: z.string() });
const Rows = z.strictObject({ table: z.string(), rows: z.array(z.record(z.string(), z.unknown())) });
const End = z.strictObject({ end: z.number() });

/** What was saved of the hosts' sandboxes: the rows are made to agree with it. */
export const Saved = z.object({ sandboxes: z.array(z.object({ id: z.string(), running: z.boolean() })) });
export type Saved = z.infer<typeof Saved>;

/**
 * Throws `conflict` if the database has tables already and `invalid_request` for what is no whole dump; then the
 * database is as empty as before.
 */
export async function loadDatabase(
  db: Kysely<Schema>,
  lines: AsyncIterable<string>,
  saved: Saved,
): Promise<void> {
  const { rows } = await sql<{ tablename: string }>`
    select tablename::text from pg_tables where schemaname = current_schema()`.execute(db);
  if (rows.length > 0)
    throw new ThawError('conflict', 'the database is not empty: restore into one that holds nothing');
  try {
    const iterator = lines[Symbol.asyncIterator]();
    const { migration } = parse(Head, (await iterator.next()).value);
    await migrate(db, migration);
    await db.transaction().execute((transaction) => fill(transaction, iterator));
    await migrate(db);
    await agree(db, saved);
  } catch (error) {
    await empty(db);
    throw error;
  }
}

async function fill(db: Kysely<Schema>, lines: AsyncIterator<string>): Promise<void> {
  const tables = await tablesInOrder(db);
  // Migrations have put rows of their own into some.
  await sql`truncate ${sql.join(tables.map((name) => sql.table(name)))}`.execute(db);
  let count = 0;
  for (;;) {
    const { value, done } = await lines.next();
    const end = done ? undefined : End.safeParse(json(value)).data;
    if (end?.end === count) break;
    if (done || end !== undefined) throw damaged('it was cut short');
    const { table, rows } = parse(Rows, value);
    if (!tables.includes(table)) throw damaged(`it has an unknown table ${table}`);
    count += rows.length;
    const target = sql.table(table);
    await sql`insert into ${target} overriding system value
      select * from json_populate_recordset(null::${target}, ${JSON.stringify(rows)}::json)`
      .execute(db)
      .catch((cause) => {
        throw isOutage(cause) ? cause : damaged(`a row does not fit its table ${table}`, cause);
      });
  }
  for (const table of tables) await continueSequences(db, table);
}

/** What numbers rows by itself goes on after the last one. */
async function continueSequences(db: Kysely<Schema>, table: string): Promise<void> {
  const { rows } = await sql<{ column: string; sequence: string }>`
    select column_name::text as column, sequence from (
      select column_name, pg_get_serial_sequence(quote_ident(table_name), column_name) as sequence
      from information_schema.columns where table_schema = current_schema() and table_name = ${table}
    ) as columns where sequence is not null`.execute(db);
  for (const { column, sequence } of rows) {
    await sql`select setval(${sequence}::regclass, coalesce(max(${sql.ref(column)}), 0) + 1, false)
      from ${sql.table(table)}`.execute(db);
  }
}

/** Rows whose build was not saved are `error`; the others are as the host will find them. */
async function agree(db: Kysely<Schema>, { sandboxes }: Saved): Promise<void> {
  const running = sandboxes.filter((sandbox) => sandbox.running).map(({ id }) => id);
  const paused = sandboxes.filter((sandbox) => !sandbox.running).map(({ id }) => id);
  const now = { host_ip: null, plane: null, status_since: sql<Date>`now()`, last_updated: sql<Date>`now()` };
  const rows = () =>
    db
      .updateTable('sandboxes')
      .set((row) => ({ ...now, revision: row('revision', '+', 1) }))
      .where('status', 'not in', ['stopped', 'stopping']);
  if (paused.length > 0)
    await rows().set({ status: 'paused', error_reason: null }).where('id', 'in', paused).execute();
  if (running.length > 0)
    await rows()
      .set({
        status: 'error',
        error_reason: 'it was running when it was backed up; resume goes on from its last build',
      })
      .where('id', 'in', running)
      .execute();
  const lost = rows().set({
    status: 'error',
    build_id: null,
    error_reason: 'the backup holds no build of it: it had never been paused, or its build was damaged',
  });
  const ids = [...running, ...paused];
  const ended = db.updateTable('sandboxes').set({ ...now, status: 'stopped', build_id: null });
  await ended.where('status', '=', 'stopping').execute();
  await (ids.length > 0 ? lost.where('id', 'not in', ids) : lost).execute();
}

async function empty(db: Kysely<Schema>): Promise<void> {
  const { rows } = await sql<{ name: string }>`
    select tablename::text as name from pg_tables where schemaname = current_schema()`.execute(db);
  for (const { name } of rows) await sql`drop table if exists ${sql.table(name)} cascade`.execute(db);
}

function parse<T>(schema: z.ZodType<T>, line: string | undefined): T {
  const parsed = schema.safeParse(json(line));
  if (parsed.success) return parsed.data;
  throw damaged('a line of it is not what it should be', parsed.error);
}

function json(line: string | undefined): unknown {
  try {
    return JSON.parse(line ?? '');
  } catch (cause) {
    throw damaged('a line of it is not JSON', cause);
  }
}

function damaged(why: string, cause?: unknown): ThawError {
  return new ThawError('invalid_request', `this is no whole dump of a database: ${why}`, { cause });
}
