/**
 * An installed Thaw of the test's own, on the host that `ownHost` made: its own data, own run folder, a free port.
 *
 *   await ownHost(import.meta.filename);
 *   describe('…', () => {
 *     let thaw: TestThaw;
 *     before(async () => { thaw = await startThaw(); });
 *     after(() => thaw.stop());
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { SANDBOX_STATUSES, type Sandbox } from '@thaw/api';
import { Thaw } from '@thaw/sdk';
import { run } from '../../packages/host-agent/src/os/run.ts';
import { UPLINK } from './own-host.ts';
import { allProcesses, type Traces, traces } from './traces.ts';

export interface StartOptions {
  /** Besides what a test always gives; `THAW_DIRTY`, for instance. */
  env?: Record<string, string>;
  /** The data folder is a file system of its own of this size. */
  dataMb?: number;
  /** Of `thaw up`, besides what a test always gives. */
  flags?: readonly string[];
  /** Prints what the daemons log. */
  verbose?: boolean;
}

export interface CliOptions {
  input?: string | Uint8Array;
  env?: Record<string, string>;
  timeoutMs?: number;
  /** Its standard output is read so slowly: a piece, then a pause. */
  readEveryMs?: number;
}

export interface CliResult {
  code: number;
  stdout: string;
  stderr: string;
  /** Standard output as it was written. */
  bytes: Buffer;
}

/** Process ids of the daemons, by what they are. */
export interface Daemons {
  up: number;
  agent: number;
  plane: number;
  postgres: number;
}

/** The body of every answer that is an error. */
export interface Refusal {
  error: { code: string; message: string };
}

interface Ready {
  url: string;
  proxy_url: string;
  proxy_tls_url?: string;
  key: string;
  pid: number;
}

const STOP_WITHIN_MS = 90_000;
const CLI_TIMEOUT_MS = 120_000;
/** What is made ahead differs by what there was before: a test that compares says how much it wants. */
const PLACES = '0';
const ALL_BUT_STOPPED = SANDBOX_STATUSES.filter((status) => status !== 'stopped');

/** Starts Thaw and waits until it serves. */
export async function startThaw(options: StartOptions = {}): Promise<TestThaw> {
  const folder = await mkdtemp('/tmp/tw-');
  // The daemons' users pass through it.
  await chmod(folder, 0o755);
  const thaw = new TestThaw(folder, options);
  try {
    if (options.dataMb !== undefined) await mountData(thaw.data, options.dataMb);
    await thaw.start();
    return thaw;
  } catch (error) {
    await thaw.end();
    throw error;
  }
}

/** An ext4 in a file beside the folder. */
async function mountData(data: string, sizeMb: number): Promise<void> {
  const image = `${data}.ext4`;
  await writeFile(image, '');
  await truncate(image, sizeMb * 2 ** 20);
  await mkdir(data);
  await run(['mkfs.ext4', '-q', '-F', '-m', '0', image]);
  await run(['mount', '-o', 'loop', image, data]);
}

export class TestThaw {
  readonly data: string;
  readonly run: string;
  url = '';
  key = '';
  /** Where ports of guests are reached. */
  proxyUrl = '';
  /** By HTTPS; empty without it. */
  proxyTlsUrl = '';
  sdk!: Thaw;
  readonly version: string;
  readonly #folder: string;
  readonly #options: StartOptions;
  readonly #log: string[] = [];
  #up: ChildProcess | undefined;
  #before: Traces | undefined;

  constructor(folder: string, options: StartOptions) {
    assert.ok(process.env.THAW_VERSION_DIR, 'THAW_VERSION_DIR names the installed version to test');
    this.version = process.env.THAW_VERSION_DIR;
    this.#folder = folder;
    this.#options = options;
    this.data = path.join(folder, 'data');
    this.run = path.join(folder, 'run');
  }

  /** Made ahead (THAW_PLACES). */
  get places(): number {
    return Number(this.#options.env?.THAW_PLACES ?? PLACES);
  }

  async start(): Promise<void> {
    this.#before ??= await traces(this.run);
    const up = spawn(
      path.join(this.version, 'bin/thaw'),
      ['up', '--json', '--verbose', ...(this.#options.flags ?? [])],
      {
        env: this.#environment({
          THAW_LISTEN: '127.0.0.1:0',
          THAW_UPLINK: UPLINK,
          THAW_PLACES: PLACES,
          ...this.#options.env,
        }),
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    this.#up = up;
    createInterface({ input: up.stderr }).on('line', (line) => {
      this.#log.push(line);
      if (this.#options.verbose) process.stderr.write(`${line}\n`);
    });
    const ready = await firstLine(up);
    if (ready === undefined) throw new Error(['Thaw did not start', ...this.#log.slice(-40)].join('\n'));
    const { url, key, proxy_url, proxy_tls_url = '' } = JSON.parse(ready) as Ready;
    Object.assign(this, { url, key, proxyUrl: proxy_url, proxyTlsUrl: proxy_tls_url });
    this.sdk = new Thaw({ url, key });
  }

  /** Everything the daemons said, for a failed assertion's message. */
  log(lines = 60): string {
    return this.#log.slice(-lines).join('\n');
  }

  /** Runs `thaw …` as a user would, on this Thaw. */
  async cli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
    const child = spawn(path.join(this.version, 'bin/thaw'), args, {
      env: this.#environment({ THAW_URL: this.url, ...options.env }),
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: options.timeoutMs ?? CLI_TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    const read = async () => {
      for await (const chunk of child.stdout) {
        stdout.push(chunk as Buffer);
        if (options.readEveryMs !== undefined) await sleep(options.readEveryMs);
      }
    };
    const reading = read();
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    // A command that does not read its input may be gone before all of it is written.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
    const [code] = (await once(child, 'exit')) as [number | null];
    await reading;
    const bytes = Buffer.concat(stdout);
    return { code: code ?? -1, stdout: bytes.toString(), stderr: Buffer.concat(stderr).toString(), bytes };
  }

  /** One raw request; a string is sent as it is, anything else as JSON. */
  async api<T = Refusal>(
    method: string,
    where: string,
    body?: unknown,
  ): Promise<{ status: number; body: T }> {
    const response = await fetch(`${this.url}${where}`, {
      method,
      headers: {
        'X-API-Key': this.key,
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, body: parse(text) as T };
  }

  /** Standard output of a shell script in a sandbox that must succeed. */
  async sh(sandbox: Sandbox | string, script: string, timeoutSec = 60): Promise<string> {
    const id = typeof sandbox === 'string' ? sandbox : sandbox.id;
    const command = { cmd: '/bin/sh', args: ['-c', script], timeout_sec: timeoutSec };
    const { stdout, stderr, exit_code } = await this.sdk.sandboxes.exec(id, command);
    assert.equal(exit_code, 0, `${script}\n${stderr}`);
    return stdout;
  }

  async agentPids(): Promise<Daemons> {
    const up = this.#up?.pid ?? 0;
    const children = (await allProcesses()).filter(({ parent }) => parent === up);
    const find = (what: string) =>
      children.find(({ argv }) => argv.some((argument) => argument.includes(what)))?.pid ?? 0;
    return {
      up,
      agent: find('host-agent/src/main.ts'),
      plane: find('control-plane/src/main.ts'),
      postgres: find('/bin/postgres'),
    };
  }

  traces(): Promise<Traces> {
    return traces(this.run);
  }

  /** The traces once `holds`, or as they are when the time is over: slots are rebuilt in the background. */
  async settledTraces(holds: (now: Traces) => boolean, withinMs = 15_000): Promise<Traces> {
    const deadline = performance.now() + withinMs;
    for (;;) {
      const now = await this.traces();
      if (holds(now) || performance.now() > deadline) return now;
      await sleep(100);
    }
  }

  /** Ctrl-C, `meanwhile`, and a new start; sandboxes go on. */
  async restart(meanwhile: () => Promise<void> = async () => {}): Promise<void> {
    await this.#interrupt();
    await meanwhile();
    await this.start();
  }

  /** Every sandbox that there is, in whatever state. */
  async destroyAll(): Promise<void> {
    const found = await Array.fromAsync(this.sdk.sandboxes.list({ status: ALL_BUT_STOPPED }));
    await Promise.all(found.map(({ id }) => this.sdk.sandboxes.delete(id)));
  }

  /** Destroys every sandbox, stops Thaw and asserts that the host is as it was before. */
  async stop(): Promise<void> {
    try {
      await this.destroyAll();
      await this.#interrupt();
      assert.deepEqual(await this.leftovers(), []);
    } finally {
      await this.end();
    }
  }

  /** What differs on the host from before the start. */
  async leftovers(): Promise<string[]> {
    assert.ok(this.#before);
    const before = JSON.stringify(this.#before);
    const now = await this.settledTraces((found) => JSON.stringify(found) === before, 5000);
    const keys = Object.keys(now) as (keyof Traces)[];
    return keys
      .filter((key) => JSON.stringify(now[key]) !== JSON.stringify(this.#before?.[key]))
      .map((key) => `${key}: ${JSON.stringify(this.#before?.[key])} became ${JSON.stringify(now[key])}`);
  }

  /** Without any check: after a failure. */
  async end(): Promise<void> {
    if (this.#up !== undefined && this.#up.exitCode === null && this.#up.signalCode === null) {
      const closed = once(this.#up, 'close');
      this.#up.kill('SIGTERM');
      await Promise.race([closed, sleep(10_000, undefined, { ref: false })]);
      this.#up.kill('SIGKILL');
    }
    if (this.#options.dataMb !== undefined) await run(['umount', '--lazy', this.data]).catch(() => {});
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #interrupt(): Promise<void> {
    const up = this.#up!;
    const closed = once(up, 'exit', { signal: AbortSignal.timeout(STOP_WITHIN_MS) });
    up.kill('SIGINT');
    const [code] = await closed;
    assert.equal(code, 0, `thaw up ended with ${code}\n${this.log()}`);
  }

  #environment(own: Record<string, string>): Record<string, string> {
    return {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/root',
      THAW_DATA: this.data,
      THAW_RUN: this.run,
      ...own,
    };
  }
}

/** Tries until it does not throw, at most `withinMs`; then throws what it last threw. */
export async function eventually<T>(attempt: () => Promise<T>, withinMs = 30_000): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(100);
    }
  }
}

async function firstLine(child: ChildProcess): Promise<string | undefined> {
  const line = new Promise<string | undefined>((resolve, reject) => {
    createInterface({ input: child.stdout! }).once('line', resolve);
    child.once('error', reject);
    child.once('exit', () => resolve(undefined));
  });
  return line;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
