/** The tables as kysely sees them. One SQL dialect: what PostgreSQL 15 to 18 and PGlite all know. */
import type { SandboxStatus, TemplateType } from '@thaw/api';
import type { ColumnType, Generated } from 'kysely';

/** A bigint: a string from pg, a number from PGlite. */
type BigInt64 = ColumnType<string | number, number, number>;
/** jsonb: written as text, read as a value. */
type Json<T> = ColumnType<T, string, string>;
type CreatedAt = ColumnType<Date, Date | undefined, never>;

export interface SandboxTable {
  id: string;
  team_id: string;
  host_id: Generated<string>;
  template_id: string;
  /** The template's name when the sandbox was created. */
  template: string;
  status: SandboxStatus;
  /** Counts transitions; reconcile compares it to see that nothing moved since it looked. */
  revision: Generated<number>;
  vcpus: number;
  memory_mb: number;
  disk_mb: number;
  timeout_sec: Generated<number>;
  metadata: Json<Record<string, string>>;
  host_ip: string | null;
  isolation: string | null;
  vmm: string | null;
  backend: string | null;
  build_id: string | null;
  error_reason: string | null;
  rolled_back_to: string | null;
  created_at: CreatedAt;
  started_at: Date | null;
  last_active_at: Date | null;
  last_updated: ColumnType<Date, Date | undefined, Date>;
}

export interface TemplateTable {
  id: string;
  /** Null: shared by all teams, as base templates are. */
  team_id: string | null;
  name: string;
  type: TemplateType;
  vcpus: number | null;
  memory_mb: number | null;
  disk_mb: number;
  build_id: string | null;
  created_at: CreatedAt;
}

export interface BuildTable {
  id: string;
  parent_id: string | null;
  generation: number;
  stored_bytes: BigInt64;
  created_at: CreatedAt;
}

export interface TagTable {
  template_id: string;
  tag: string;
  build_id: string;
  created_at: CreatedAt;
}

export interface ApiKeyTable {
  id: string;
  team_id: string;
  /** SHA-256 of the key, hex. */
  hash: string;
  /** The first characters, to tell keys apart in a list. */
  prefix: string;
  created_at: CreatedAt;
}

export interface TeamTable {
  id: string;
  name: string;
  created_at: CreatedAt;
}

export interface Schema {
  sandboxes: SandboxTable;
  templates: TemplateTable;
  builds: BuildTable;
  tags: TagTable;
  api_keys: ApiKeyTable;
  teams: TeamTable;
}
