/** Numbered migrations. One that was released never changes; the next one gets the next number. */
import { ThawError } from '@thaw/api';
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

const lifecycle: Migration = {
  async up(db: Kysely<unknown>) {
    // Rows of before never ended by themselves; what they were made with stays so.
    await sql`
      alter table sandboxes
        add column end_at timestamptz(3),
        add column on_timeout text not null default 'pause' check (on_timeout in ('kill', 'pause')),
        add column auto_resume boolean not null default true,
        add column network jsonb not null default '{"internet":true,"allow_out":[],"deny_out":[]}',
        add column status_since timestamptz(3) not null default now(),
        add constraint sandboxes_one_clock check (end_at is null or timeout_sec = 0)`.execute(db);
    await sql`update sandboxes set status_since = last_updated`.execute(db);
    await sql`create index sandboxes_stopped on sandboxes (status_since) where status = 'stopped'`.execute(
      db,
    );
  },
};

const keys: Migration = {
  async up(db: Kysely<unknown>) {
    const quota = sql`add column max_sandboxes integer, add column max_vcpus integer,
      add column max_memory_mb integer, add column max_disk_mb integer`;
    await sql`alter table teams ${quota}`.execute(db);
    await sql`
      alter table api_keys ${quota},
        add column name text not null default '',
        add column admin boolean not null default false,
        add column revoked_at timestamptz(3)`.execute(db);
    // Until now only the operator could make keys, and each could do everything.
    await sql`update api_keys set admin = true`.execute(db);
    await sql`
      alter table sandboxes add column key_id text references api_keys(id), add column plane integer`.execute(
      db,
    );
    await sql`
      create index sandboxes_usage on sandboxes (team_id, key_id) where status <> 'stopped'`.execute(db);
    await sql`
      create table hosts (
        id text primary key,
        identity text not null,
        claimed_at timestamptz(3) not null default now()
      )`.execute(db);
  },
};

const events: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`
      create table events (
        id text primary key,
        sandbox_id text not null references sandboxes(id) on delete cascade,
        verb text not null,
        actor text not null,
        outcome text not null,
        message text,
        ms double precision not null,
        timings_ms jsonb not null default '{}',
        request_id text,
        created_at timestamptz(3) not null default now()
      )`.execute(db);
    await sql`create index events_list on events (sandbox_id, created_at desc, id desc)`.execute(db);
  },
};

const templateErrors: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`alter table templates add column error_reason text`.execute(db);
  },
};

const e2b: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`
      alter table sandboxes
        add column access_token text,
        add column traffic_token text,
        add column alias text,
        add column ttl_sec integer,
        add column resumed_at timestamptz(3),
        add column pause_memory boolean not null default true,
        add column ingress jsonb not null default '{}',
        add column idempotency_key text,
        add column idempotency_hash text,
        add column pause_mode text check (pause_mode in ('full', 'filesystem')),
        add column allow_internet boolean`.execute(db);
    await sql`
      create unique index sandboxes_idempotency on sandboxes (team_id, idempotency_key)
        where idempotency_key is not null`.execute(db);
  },
};

const teams: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`
      alter table teams
        add column granted_sandboxes integer, add column granted_vcpus integer,
        add column granted_memory_mb integer, add column granted_disk_mb integer,
        add column closing_at timestamptz(3),
        add constraint teams_name unique (name)`.execute(db);
    // There was one team, so whoever could administrate it could do everything there was.
    await sql`alter table api_keys add column operator boolean not null default false`.execute(db);
    await sql`update api_keys set operator = admin where team_id = 'default'`.execute(db);
    await sql`
      alter table api_keys add constraint api_keys_operator check (not operator or (admin and team_id = 'default'))`.execute(
      db,
    );
    await sql`
      create table template_owners (
        template_id text primary key,
        team_id text not null references teams(id),
        created_at timestamptz(3) not null default now()
      )`.execute(db);
    await sql`
      insert into template_owners (template_id, team_id)
      select id, team_id from templates where team_id is not null`.execute(db);
    // Neither keys nor teams are referred to: a line outlives both.
    await sql`
      create table audit (
        id text primary key,
        created_at timestamptz(3) not null,
        team_id text,
        key_id text,
        actor text not null,
        verb text not null,
        target text not null,
        outcome text not null,
        status integer,
        address text,
        request_id text
      )`.execute(db);
    await sql`create index audit_list on audit (created_at desc, id desc)`.execute(db);
    await sql`create index audit_of_team on audit (team_id, created_at desc, id desc)`.execute(db);
    await sql`
      create or replace function refuse_change() returns trigger language plpgsql as
        $$ begin raise exception 'lines of the audit log do not change'; end $$`.execute(db);
    await sql`
      create trigger audit_is_appended_to before update on audit
        for each statement execute function refuse_change()`.execute(db);
  },
};

const snapshots: Migration = {
  async up(db: Kysely<unknown>) {
    // A tag is a template row of its own, as it is a head of its own on the host.
    await sql`drop table tags`.execute(db);
    // Not a reference: templates outlive the sandboxes that they were made of.
    await sql`alter table templates add column source_sandbox_id text`.execute(db);
  },
};

/** What another control plane, or anybody else, does to a sandbox is told on the channel `thaw_sandboxes`, as `ID:REVISION`. */
const sandboxChanges: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`
      create or replace function tell_sandbox() returns trigger language plpgsql as $$
      begin
        if tg_op = 'DELETE' then
          perform pg_notify('thaw_sandboxes', old.id || ':');
        else
          perform pg_notify('thaw_sandboxes', new.id || ':' || new.revision);
        end if;
        return null;
      end $$`.execute(db);
    await sql`
      create trigger sandboxes_told after insert or delete or update of revision on sandboxes
        for each row execute function tell_sandbox()`.execute(db);
  },
};

const MIGRATIONS: Record<string, Migration> = {
  '0001_first': first,
  '0002_lifecycle': lifecycle,
  '0003_keys': keys,
  '0004_events': events,
  '0005_template_errors': templateErrors,
  '0006_e2b': e2b,
  '0007_teams': teams,
  '0008_snapshots': snapshots,
  '0010_sandbox_changes': sandboxChanges,
};

const provider: MigrationProvider = { getMigrations: async () => MIGRATIONS };

/** unique nulls not distinct came with it. */
const SERVER_VERSION_MIN = 150_000;

/**
 * Brings the database to the newest schema, or to that of migration `target`. Concurrent callers wait for each other.
 * Throws `conflict` for a database or a target that only a newer Thaw knows, and for a server that is too old.
 */
export async function migrate(db: Kysely<Schema>, target?: string): Promise<void> {
  const { rows } = await sql<{ version: number }>`
    select current_setting('server_version_num')::integer as version`.execute(db);
  const version = Number(rows[0]?.version ?? 0);
  if (version < SERVER_VERSION_MIN)
    throw new ThawError(
      'conflict',
      `Thaw needs PostgreSQL 15 or later, the database server is ${Math.floor(version / 10_000)}`,
    );
  const migrator = new Migrator({ db, provider });
  const unknown = [...(await executed(db)), ...(target === undefined ? [] : [target])].find(
    (name) => !Object.hasOwn(MIGRATIONS, name),
  );
  if (unknown !== undefined)
    throw new ThawError(
      'conflict',
      `the database was made by a newer Thaw (${unknown}): upgrade, or restore a backup of before`,
    );
  const { error } = await (target === undefined ? migrator.migrateToLatest() : migrator.migrateTo(target));
  if (error) throw error;
}

async function executed(db: Kysely<Schema>): Promise<string[]> {
  const { rows: tables } = await sql<{ name: string | null }>`
    select to_regclass('kysely_migration')::text as name`.execute(db);
  if (!tables[0]?.name) return [];
  const { rows } = await sql<{ name: string }>`select name from kysely_migration`.execute(db);
  return rows.map(({ name }) => name);
}
