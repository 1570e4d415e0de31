/** Numbered migrations. One that was released never changes; the next one gets the next number. */
import { type Kysely, sql } from 'kysely';
import { type Migration, type MigrationProvider, Migrator } from 'kysely/migration';
import type { Schema } from './schema.ts';

const first: Migration = {
  async up(db: Kysely<unknown>) {
    // timestamptz(3): a Date holds milliseconds, and a list's cursor must compare equal to what was stored.
    await sql`
      create table teams (
        id text primary key,
        name text not null,
        created_at timestamptz(3) not null default now()
      )`.execute(db);
    await sql`insert into teams (id, name) values ('default', 'default')`.execute(db);
    await sql`
      create table api_keys (
        id text primary key,
        team_id text not null references teams(id),
        hash text not null unique,
        prefix text not null,
        created_at timestamptz(3) not null default now()
      )`.execute(db);
    await sql`
      create table builds (
        id text primary key,
        parent_id text,
        generation integer not null,
        stored_bytes bigint not null,
        created_at timestamptz(3) not null default now()
      )`.execute(db);
    await sql`
      create table templates (
        id text primary key,
        team_id text references teams(id),
        name text not null,
        type text not null check (type in ('base', 'snapshot')),
        vcpus integer,
        memory_mb integer,
        disk_mb integer not null,
        build_id text references builds(id),
        created_at timestamptz(3) not null default now(),
        unique nulls not distinct (team_id, name)
      )`.execute(db);
    await sql`
      create table tags (
        template_id text not null references templates(id) on delete cascade,
        tag text not null,
        build_id text not null references builds(id),
        created_at timestamptz(3) not null default now(),
        primary key (template_id, tag)
      )`.execute(db);
    await sql`
      create table sandboxes (
        id text primary key,
        team_id text not null references teams(id),
        host_id text not null default 'default',
        template_id text not null,
        template text not null,
        status text not null check (status in ('pending', 'running', 'pausing', 'paused', 'resuming',
          'snapshotting', 'stopping', 'stopped', 'error')),
        revision integer not null default 0,
        vcpus integer not null,
        memory_mb integer not null,
        disk_mb integer not null,
        timeout_sec integer not null default 0,
        metadata jsonb not null default '{}',
        host_ip text,
        isolation text,
        vmm text,
        backend text,
        build_id text references builds(id),
        error_reason text,
        rolled_back_to text,
        created_at timestamptz(3) not null default now(),
        started_at timestamptz(3),
        last_active_at timestamptz(3),
        last_updated timestamptz(3) not null default now()
      )`.execute(db);
    await sql`create index sandboxes_list on sandboxes (team_id, created_at desc, id desc)`.execute(db);
    await sql`create index sandboxes_live on sandboxes (host_id, status) where status <> 'stopped'`.execute(
      db,
    );
    await sql`create index sandboxes_build on sandboxes (build_id)`.execute(db);
    await sql`create index templates_build on templates (build_id)`.execute(db);
    await sql`create index builds_parent on builds (parent_id)`.execute(db);
  },
};

const provider: MigrationProvider = {
  getMigrations: async () => ({ '0001_first': first }),
};

/** Brings the database to the newest schema. Concurrent callers wait for each other. */
export async function migrate(db: Kysely<Schema>): Promise<void> {
  const { error } = await new Migrator({ db, provider }).migrateToLatest();
  if (error) throw error;
}
