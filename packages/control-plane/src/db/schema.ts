/** The tables as kysely sees them. One SQL dialect: what PostgreSQL 15 to 18 and PGlite all know. */
import type { NetworkPolicy, OnTimeout, SandboxStatus, TemplateType } from '@thaw/api';
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
  status_since: ColumnType<Date, Date | undefined, Date>;
  /** Counts transitions; reconcile compares it to see that nothing moved since it looked. */
  revision: Generated<number>;
  vcpus: number;
  memory_mb: number;
  disk_mb: number;
  /** Idle time after which it ends; 0: never. */
  timeout_sec: Generated<number>;
  /** When it ends whatever it does; such a row has no `timeout_sec`. */
  end_at: Date | null;
  on_timeout: Generated<OnTimeout>;
  auto_resume: Generated<boolean>;
  network: ColumnType<NetworkPolicy, string | undefined, string>;
  metadata: Json<Record<string, string>>;
  host_ip: string | null;
  isolation: string | null;
  vmm: string | null;
  backend: string | null;
  build_id: string | null;
  error_reason: string | null;
  rolled_back_to: string | null;
  /** The key that made it; null for sandboxes older than that column. */
  key_id: string | null;
  /** The control plane that moved it into a transitional status last. */
  plane: number | null;
  created_at: CreatedAt;
  started_at: Date | null;
  last_active_at: Date | null;
  last_updated: ColumnType<Date, Date | undefined, Date>;
  /** What its guest agent asks of clients; null: nothing, or not known yet. */
  access_token: string | null;
  /** What the proxy asks of clients on the guest's other ports; null: nothing. */
  traffic_token: string | null;
  /** The template's name as the create gave it, for clients of the E2B API. */
  alias: string | null;
  /** The time that a create of the E2B API gave it: what it gets when traffic wakes it. */
  ttl_sec: number | null;
  /** Its last start, if that was no create. */
  resumed_at: Date | null;
  /** Whether the pause at the end of its time keeps memory. */
  pause_memory: Generated<boolean>;
  ingress: ColumnType<Ingress, string | undefined, string>;
  /** Unique in its team. */
  idempotency_key: string | null;
  /** Of the request that came with the key, SHA-256, hex. */
  idempotency_hash: string | null;
  /** What its last pause kept; only while it is paused. */
  pause_mode: 'full' | 'filesystem' | null;
  /** What the create said of the internet as a whole; null: nothing. */
  allow_internet: boolean | null;
}

/** How clients may reach a guest's ports. */
export interface Ingress {
  /** False: only with the traffic token. */
  allow_public_traffic?: boolean;
  /** The Host header that services see; `${PORT}` stands for the port. */
  mask_request_host?: string;
  /** Ports whose services speak TLS. */
  https_ports?: number[];
}

/** One tag of a template, which is all there is of most: the names are those of template/name.ts. */
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
  /** When its build was made. */
  created_at: ColumnType<Date, Date | undefined, Date>;
  /** Why the host can't read it at present. */
  error_reason: string | null;
  /** The sandbox that it was made of; null: not known. */
  source_sandbox_id: string | null;
}

export interface BuildTable {
  id: string;
  parent_id: string | null;
  generation: number;
  stored_bytes: BigInt64;
  created_at: CreatedAt;
}

/** What a key or a team may have at once; null: no limit. */
interface QuotaColumns {
  max_sandboxes: number | null;
  max_vcpus: number | null;
  max_memory_mb: number | null;
  max_disk_mb: number | null;
}

export interface ApiKeyTable extends QuotaColumns {
  id: string;
  team_id: string;
  name: Generated<string>;
  /** May make, change and revoke keys. */
  admin: Generated<boolean>;
  /** May administrate all teams; only of keys of the default team that may administrate. */
  operator: Generated<boolean>;
  /** SHA-256 of the key, hex. */
  hash: string;
  /** The first characters, to tell keys apart in a list. */
  prefix: string;
  created_at: CreatedAt;
  /** The row of a revoked key stays: sandboxes name it. */
  revoked_at: Date | null;
}

/** What the operator lets a team have at once, whatever quota it gives itself; null: no limit. */
interface GrantColumns {
  granted_sandboxes: number | null;
  granted_vcpus: number | null;
  granted_memory_mb: number | null;
  granted_disk_mb: number | null;
}

export interface TeamTable extends QuotaColumns, GrantColumns {
  id: string;
  name: string;
  created_at: CreatedAt;
  /** Since when it is being deleted: nothing is made for it any more. */
  closing_at: Date | null;
}

/** Whose a template is, from before a host is asked to make it. */
export interface TemplateOwnerTable {
  template_id: string;
  team_id: string;
  created_at: CreatedAt;
}

/** A line for each request that was to change something. Lines are added, and forgotten when they are old. */
export interface AuditTable {
  /** Sorts by time. */
  id: ColumnType<string, string, never>;
  created_at: ColumnType<Date, Date, never>;
  /** Null: the request had no valid key. */
  team_id: ColumnType<string | null, string | null, never>;
  key_id: ColumnType<string | null, string | null, never>;
  actor: ColumnType<string, string, never>;
  verb: ColumnType<string, string, never>;
  /** Ids and names, with spaces between. */
  target: ColumnType<string, string, never>;
  outcome: ColumnType<string, string, never>;
  status: ColumnType<number | null, number | null, never>;
  address: ColumnType<string | null, string | null, never>;
  request_id: ColumnType<string | null, string | null, never>;
}

/** Which installation a host's rows belong to. */
export interface HostTable {
  id: string;
  identity: string;
  claimed_at: CreatedAt;
}

/** What happened to a sandbox; gone with its row. */
export interface EventTable {
  /** Sorts by time. */
  id: string;
  sandbox_id: string;
  verb: string;
  actor: string;
  outcome: string;
  message: string | null;
  ms: number;
  timings_ms: Json<Record<string, number>>;
  request_id: string | null;
  created_at: CreatedAt;
}

export interface Schema {
  audit: AuditTable;
  events: EventTable;
  hosts: HostTable;
  sandboxes: SandboxTable;
  templates: TemplateTable;
  builds: BuildTable;
  template_owners: TemplateOwnerTable;
  api_keys: ApiKeyTable;
  teams: TeamTable;
}
