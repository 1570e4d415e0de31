/** The client of `/v1`. Every call throws a `ThawError` whose `kind` says what the caller can do next. */
import type {
  AuditLine,
  CreateSandboxInput,
  ExecInput,
  ExecResult,
  FileEntry,
  Fork,
  ForkSandboxInput,
  Forks,
  ListAuditInput,
  PauseSandboxInput,
  ResumeSandboxInput,
  Sandbox,
  SandboxEvent,
  SandboxStats,
  SandboxStatus,
  StreamStartInput,
  TemplateInfo,
  TemplateType,
  UpdateSandboxInput,
  WarmUpInput,
} from '@thaw/api';
import { exec } from './exec.ts';
import { ExecStream } from './exec-stream.ts';
import { type FileContent, type FileOptions, readFile, writeFile } from './files.ts';
import { type Connection, json, type Request, sandboxPath, send } from './http.ts';
import { Keys, Team, Teams } from './keys.ts';
import { type Change, type WatchOptions, watchDir } from './watch.ts';

export interface ThawOptions {
  /** Where Thaw listens, for instance `http://127.0.0.1:8080`. */
  url: string;
  key: string;
  fetch?: typeof fetch;
}

/** A user of the guest; root unless given. */
export interface AsUser {
  user?: string;
}

export interface ListFilter {
  status?: SandboxStatus[];
  template?: string;
  metadata?: Record<string, string>;
}

export class Thaw {
  readonly sandboxes: Sandboxes;
  readonly snapshots: Snapshots;
  readonly keys: Keys;
  readonly team: Team;
  readonly teams: Teams;
  readonly #to: Connection;

  constructor(options: ThawOptions) {
    this.#to = { url: options.url.replace(/\/+$/, ''), key: options.key, fetch: options.fetch ?? fetch };
    this.sandboxes = new Sandboxes(this.#to);
    this.snapshots = new Snapshots(this.#to);
    this.keys = new Keys(this.#to);
    this.team = new Team(this.#to);
    this.teams = new Teams(this.#to);
  }

  /** Who wanted to change what, and what came of it, newest first. For keys that may administrate. */
  audit(filter: ListAuditInput = {}): AsyncGenerator<AuditLine> {
    return pages(this.#to, '/v1/audit', filter);
  }

  /** Resolves when control plane, database and host answer. */
  async ready(signal?: AbortSignal): Promise<void> {
    await (await send(this.#to, 'GET', '/readyz', { signal })).body?.cancel();
  }
}

class Sandboxes {
  readonly #to: Connection;

  constructor(to: Connection) {
    this.#to = to;
  }

  create(wish: CreateSandboxInput = {}): Promise<Sandbox> {
    return json(this.#to, 'POST', '/v1/sandboxes', { json: wish });
  }

  /** Newest first; everything but `stopped` unless the filter says otherwise. */
  list(filter: ListFilter = {}): AsyncGenerator<Sandbox> {
    return pages(this.#to, '/v1/sandboxes', {
      status: filter.status?.join(','),
      template: filter.template,
      metadata: filter.metadata && new URLSearchParams(filter.metadata).toString(),
    });
  }

  get(id: string): Promise<Sandbox> {
    return json(this.#to, 'GET', sandboxPath(id));
  }

  /** Memory and page faults of a running sandbox. */
  stats(id: string): Promise<SandboxStats> {
    return json(this.#to, 'GET', `${sandboxPath(id)}/stats`);
  }

  /** Who did what to it, newest first. */
  events(id: string): AsyncGenerator<SandboxEvent> {
    return pages(this.#to, `${sandboxPath(id)}/events`, {});
  }

  /** What its console said last: boot messages and the serial port. */
  async logs(id: string): Promise<string> {
    return (await send(this.#to, 'GET', `${sandboxPath(id)}/logs`)).text();
  }

  async delete(id: string): Promise<void> {
    await send(this.#to, 'DELETE', sandboxPath(id));
  }

  /** Without memory only its disk is kept, and its next start boots. */
  pause(id: string, wish: PauseSandboxInput = {}): Promise<Sandbox> {
    return json(this.#to, 'POST', `${sandboxPath(id)}/pause`, { json: wish });
  }

  /** Without memory it boots from its disk alone. */
  resume(id: string, wish: ResumeSandboxInput = {}): Promise<Sandbox> {
    return json(this.#to, 'POST', `${sandboxPath(id)}/resume`, { json: wish });
  }

  /** Sandboxes that go on from where this one is: what became of each. */
  async fork(id: string, wish: ForkSandboxInput = {}): Promise<Fork[]> {
    return (await json<Forks>(this.#to, 'POST', `${sandboxPath(id)}/fork`, { json: wish })).forks;
  }

  /** What is left out stays as it is; `metadata` and `network` are replaced whole. */
  update(id: string, change: UpdateSandboxInput): Promise<Sandbox> {
    return json(this.#to, 'PATCH', sandboxPath(id), { json: change });
  }

  /** Runs a command to its end and answers all of its output. */
  exec(id: string, command: ExecInput): Promise<ExecResult> {
    return exec(this.#to, id, command);
  }

  /** Starts a command whose output comes as it is written. */
  execStream(id: string, command: Omit<StreamStartInput, 'type'>): ExecStream {
    return new ExecStream(this.#to, id, command);
  }

  writeFile(id: string, path: string, content: FileContent, options?: FileOptions): Promise<void> {
    return writeFile(this.#to, id, path, content, options);
  }

  readFile(id: string, path: string, options?: FileOptions): Promise<ReadableStream<Uint8Array>> {
    return readFile(this.#to, id, path, options);
  }

  /** What a path is; `not_found` if there is nothing. */
  statFile(id: string, path: string, options: AsUser = {}): Promise<FileEntry> {
    return json(this.#to, 'POST', `${sandboxPath(id)}/files/stat`, { json: { ...options, path } });
  }

  /** Each folder comes before what is in it; `depth` 1 (the default) looks into `path` only. */
  listDir(id: string, path: string, options: AsUser & { depth?: number } = {}): Promise<FileEntry[]> {
    return json(this.#to, 'POST', `${sandboxPath(id)}/files/list`, { json: { ...options, path } });
  }

  /** With the folders above it that are missing; `already_exists` if it is there. */
  makeDir(id: string, path: string, options: AsUser = {}): Promise<FileEntry> {
    return json(this.#to, 'POST', `${sandboxPath(id)}/files/mkdir`, { json: { ...options, path } });
  }

  moveFile(id: string, source: string, destination: string, options: AsUser = {}): Promise<FileEntry> {
    const body = { ...options, source, destination };
    return json(this.#to, 'POST', `${sandboxPath(id)}/files/move`, { json: body });
  }

  /** A folder goes with all that is in it; a path that does not exist is fine. */
  async removeFile(id: string, path: string, options: AsUser = {}): Promise<void> {
    await send(this.#to, 'POST', `${sandboxPath(id)}/files/remove`, { json: { ...options, path } });
  }

  /** Resolves when the watch stands; from then on every change comes, until the iterator is left. */
  watchDir(id: string, path: string, options?: WatchOptions): Promise<AsyncGenerator<Change>> {
    return watchDir(this.#to, id, path, options);
  }
}

export interface SnapshotOptions {
  name?: string;
  overwrite?: boolean;
  /** Done in the sandbox before it is frozen; a paused one is woken for it. */
  warm_up?: WarmUpInput;
}

class Snapshots {
  readonly #to: Connection;

  constructor(to: Connection) {
    this.#to = to;
  }

  create(sandboxId: string, options: SnapshotOptions = {}): Promise<TemplateInfo> {
    const { name, overwrite, warm_up } = options;
    return json(this.#to, 'POST', '/v1/snapshots', {
      query: { overwrite: overwrite ? 'true' : undefined },
      json: { sandbox_id: sandboxId, name, warm_up },
    });
  }

  list(type?: TemplateType): AsyncGenerator<TemplateInfo> {
    return pages(this.#to, '/v1/snapshots', { type });
  }

  async delete(name: string): Promise<void> {
    await send(this.#to, 'DELETE', `/v1/snapshots/${encodeURIComponent(name)}`);
  }
}

async function* pages<T>(
  to: Connection,
  path: string,
  query: NonNullable<Request['query']>,
): AsyncGenerator<T> {
  let token: string | undefined;
  do {
    const response = await send(to, 'GET', path, { query: { ...query, next_token: token } });
    yield* (await response.json()) as T[];
    token = response.headers.get('x-next-token') ?? undefined;
  } while (token !== undefined);
}
