/**
 * A whole control plane for tests: a real database, the fake agent on a real socket, a port of its own. The database is
 * PostgreSQL; with THAW_TEST_DATABASE=pglite it is PGlite where a test does not need the server itself.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { newApiKey } from '@thaw/api';
import { pino } from 'pino';
import { addKey } from './auth/key.ts';
import type { Config } from './config.ts';
import { connectDatabase, type Database } from './db/connect.ts';
import { ThrowawayCluster } from './db/throwaway.ts';
import { FakeAgent } from './host/fake-agent.ts';
import type { TlsFiles } from './http/tls.ts';
import type { ProxyLimits } from './proxy/proxy.ts';
import { type ControlPlane, startControlPlane } from './start.ts';

export interface Answer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: the body is what the test says it is
  body: any;
}

export interface TestOptions
  extends Partial<
    Pick<
      Config,
      'reconcileMs' | 'clockMs' | 'retention' | 'audit' | 'trustedProxies' | 'domain' | 'orphanGraceMs'
    >
  > {
  cluster?: ThrowawayCluster;
  server?: true;
  pingEveryMs?: number;
  /** Its proxy listens too, by TLS as well with these. */
  proxy?: true | TlsFiles;
  proxyLimits?: Partial<ProxyLimits>;
}

export class TestPlane implements AsyncDisposable {
  readonly agent: FakeAgent;
  readonly config: Config;
  readonly key: string;
  running: ControlPlane;
  readonly #cluster: ThrowawayCluster | undefined;
  readonly #database: Database | undefined;
  readonly #undo: AsyncDisposableStack;

  private constructor(
    store: { cluster?: ThrowawayCluster; database?: Database },
    agent: FakeAgent,
    config: Config,
    key: string,
    running: ControlPlane,
    undo: AsyncDisposableStack,
  ) {
    this.#cluster = store.cluster;
    this.#database = store.database;
    this.agent = agent;
    this.config = config;
    this.key = key;
    this.running = running;
    this.#undo = undo;
  }

  /**
   * In a new database of `cluster`, or of one of its own. Rounds of reconcile come only at the start, and no
   * clock ticks, unless the options say otherwise. With `server` it is PostgreSQL in any case.
   */
  static async start(options: TestOptions = {}): Promise<TestPlane> {
    await using undo = new AsyncDisposableStack();
    const inProcess =
      process.env.THAW_TEST_DATABASE === 'pglite' && !options.server && options.cluster === undefined;
    const store: { cluster?: ThrowawayCluster; database?: Database } = inProcess
      ? { database: (await import('./db/pglite.ts')).memoryDatabase() }
      : { cluster: options.cluster ?? undo.use(await ThrowawayCluster.start()) };
    undo.defer(() => store.database?.destroy());
    const folder = mkdtempSync(join(tmpdir(), 'thaw-cp-'));
    undo.defer(() => rmSync(folder, { recursive: true, force: true }));
    const agent = undo.use(await new FakeAgent(join(folder, 'agent.sock')).listen());
    const config: Config = {
      databaseUrl: (await store.cluster?.database()) ?? '',
      listen: { host: '127.0.0.1', port: 0 },
      proxy: proxyOf(options.proxy),
      agentSocket: agent.socketPath,
      domain: options.domain,
      allowedOrigins: ['http://allowed.example'],
      reconcileMs: options.reconcileMs ?? 3_600_000,
      clockMs: options.clockMs ?? 3_600_000,
      retention: options.retention ?? { deletePausedAfterSec: 0, purgeStoppedAfterSec: 86_400 },
      audit: options.audit ?? { purgeAfterSec: 86_400, linesMax: 100_000 },
      trustedProxies: options.trustedProxies ?? [],
      orphanGraceMs: options.orphanGraceMs ?? 3_600_000,
      identity: undefined,
      claimDatabase: false,
      logLevel: process.env.THAW_LOG_LEVEL ?? 'silent',
    };
    const { database } = store;
    const running = await startControlPlane(config, pino({ level: config.logLevel }), {
      ...options,
      database,
    });
    const key = newApiKey();
    await addKey(running.plane.db, key);
    return new TestPlane(store, agent, config, key, running, undo.move());
  }

  /** The server that the database is in. Throws where there is none. */
  get cluster(): ThrowawayCluster {
    if (this.#cluster === undefined)
      throw new Error('this test needs a database server: start with `server`');
    return this.#cluster;
  }

  /** Works on the database past the control plane. */
  async withDatabase<T>(work: (db: Database) => Promise<T>): Promise<T> {
    if (this.#database) return work(this.#database);
    const db = connectDatabase(this.config.databaseUrl, pino({ level: 'silent' }));
    try {
      return await work(db);
    } finally {
      await db.destroy();
    }
  }

  get url(): string {
    return this.running.url;
  }

  /** Stops the control plane, runs `meanwhile`, starts it again on the same database. */
  async restart(meanwhile: () => void | Promise<void> = () => {}): Promise<void> {
    await this.running[Symbol.asyncDispose]();
    await meanwhile();
    const log = pino({ level: this.config.logLevel });
    this.running = await startControlPlane(this.config, log, { database: this.#database });
  }

  /** A JSON request with the key; `body` may be a string that is sent as it is. */
  async ask(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const response = await fetch(this.url + path, {
      method,
      headers: {
        'X-API-Key': this.key,
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.includes('json');
    return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
  }

  async createSandbox(body: unknown = {}): Promise<string> {
    const { status, body: sandbox } = await this.ask('POST', '/v1/sandboxes', body);
    if (status !== 201) throw new Error(`create answered ${status}: ${JSON.stringify(sandbox)}`);
    return sandbox.id;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.agent.release();
    await this.running[Symbol.asyncDispose]();
    await this.#undo.disposeAsync();
  }
}

function proxyOf(wish: true | TlsFiles | undefined): Config['proxy'] {
  const free = { host: '127.0.0.1', port: 0 };
  if (wish === undefined) return { listen: undefined, tlsListen: undefined, tls: undefined };
  if (wish === true) return { listen: free, tlsListen: undefined, tls: undefined };
  return { listen: free, tlsListen: free, tls: wish };
}

/** The body of an answer that must be JSON. */
export async function jsonOf(response: Response): Promise<Answer['body']> {
  return response.json();
}

/** Waits for a condition, looking often; fails after `timeoutMs`. */
export async function until(holds: () => boolean | Promise<boolean>, timeoutMs = 10_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error('waited in vain');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
