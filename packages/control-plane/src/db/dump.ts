/**
 * The whole database as lines of JSON, at one instant. It says which migration it stands on and holds each row as
 * PostgreSQL itself writes it in JSON, so any version of it, and any later Thaw, can take it in again.
 *
 *   {"format":"thaw-database","version":1,"migration":"0003_keys"}
 *   {"table":"teams","rows":[{…},…]}        parents before children
 *   {"end":1234}                            the number of rows
 */
import { type Kysely, sql } from 'kysely';
import type { Schema } from './schema.ts';

export const FORMAT = 'thaw-database';
export const VERSION = 1;

const ROWS_AT_ONCE = 500;

/** Each line without its newline. Must be read to its end or returned: it holds a transaction. */
export async function* dumpDatabase(db: Kysely<Schema>): AsyncGenerator<string> {
  // A generator can't yield from inside kysely's own transaction callback.
  const lines: string[] = [];
  let wake = Promise.withResolvers<void>();
  let taken = Promise.withResolvers<void>();
  let stopped = false;
  const emit = async (line: object) => {
    lines.push(JSON.stringify(line));
    wake.resolve();
    await taken.promise;
    taken = Promise.withResolvers<void>();
    if (stopped) throw new Error('the reader has gone');
  };
  const work = db
    .transaction()
    .setIsolationLevel('repeatable read')
    .execute((transaction) => emitAll(transaction, emit));
  const ended = work.then(
    () => true,
    () => true,
  );
  try {
    for (;;) {
      const over = await Promise.race([ended, wake.promise.then(() => false)]);
      wake = Promise.withResolvers<void>();
      yield* lines.splice(0);
      if (over) break;
      taken.resolve();
    }
    await work;
  } finally {
    stopped = true;
    taken.resolve();
    await ended;
  }
}

async function emitAll(db: Kysely<Schema>, emit: (line: object) => Promise<void>): Promise<void> {
  await emit({ format: FORMAT, version: VERSION, migration: await lastMigration(db) });
  let count = 0;
  for (const table of await tablesInOrder(db)) {
    await sql`declare rows no scroll cursor for
      select to_json(one) as row from ${sql.table(table)} as one`.execute(db);
    for (;;) {
      const { rows } = await sql<{ row: unknown }>`fetch ${sql.lit(ROWS_AT_ONCE)} from rows`.execute(db);
      if (rows.length === 0) break;
      count += rows.length;
      await emit({ table, rows: rows.map(({ row }) => row) });
    }
    await sql`close rows`.execute(db);
  }
  await emit({ end: count });
}

async function lastMigration(db: Kysely<Schema>): Promise<string> {
  const { rows } = await sql<{ name: string }>`
    select name from kysely_migration order by name desc limit 1`.execute(db);
  if (rows[0] === undefined) throw new Error('the database holds no Thaw');
  return rows[0].name;
}

/** Every table of ours; one that refers to another comes after it. */
export async function tablesInOrder(db: Kysely<Schema>): Promise<string[]> {
  const { rows: tables } = await sql<{ name: string }>`
    select tablename::text as name from pg_tables
    where schemaname = current_schema() and tablename not like 'kysely%' order by tablename`.execute(db);
  const { rows: references } = await sql<{ child: string; parent: string }>`
    select child.relname::text as child, parent.relname::text as parent from pg_constraint
      join pg_class child on child.oid = conrelid join pg_class parent on parent.oid = confrelid
    where contype = 'f' and conrelid <> confrelid and connamespace = current_schema()::regnamespace`.execute(
    db,
  );
  const ordered: string[] = [];
  const visit = (name: string): void => {
    if (ordered.includes(name)) return;
    for (const { child, parent } of references) if (child === name) visit(parent);
    ordered.push(name);
  };
  for (const { name } of tables) visit(name);
  return ordered;
}
