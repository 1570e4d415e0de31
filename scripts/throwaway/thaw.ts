/**
 * An installed Thaw that is thrown away afterwards: its own data and run folders, a free port, an uplink that leads
 * nowhere. It is used as anybody would use it: by its CLI and its REST API.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { endProcesses, instanceOf, leftovers } from './leftovers.ts';
import { addUplink, removeUplink } from './uplink.ts';

/** On a disk, unlike `/tmp` on some machines, and short: paths of Unix sockets end at 107 bytes. */
const PLACE = '/var/tmp/thawd-';
const STOP_WITHIN_MS = 90_000;
const ERROR_LINES = 20;

export interface ThrowawayOptions {
  /** The installed version's folder. */
  version: string;
  env?: Record<string, string>;
  /** Aborted: calls throw its reason. */
  signal?: AbortSignal;
}

export class ThrowawayThaw implements AsyncDisposable {
  url = '';
  key = '';
  /** Where ports of guests are reached. */
  proxyUrl = '';
  /** Its data folder. */
  data = '';
  readonly #options: ThrowawayOptions;
  readonly #folder: string;
  readonly #lines: string[] = [];
  #instance = '';
  #up: ChildProcess | undefined;
  #undo = new AsyncDisposableStack();

  private constructor(options: ThrowawayOptions, folder: string) {
    this.#options = options;
    this.#folder = folder;
  }

  /** Resolves when it serves. Throws with its last words when it does not start. */
  static async start(options: ThrowawayOptions): Promise<ThrowawayThaw> {
    options.signal?.throwIfAborted();
    await using undo = new AsyncDisposableStack();
    const folder = await mkdtemp(PLACE);
    undo.defer(() => rm(folder, { recursive: true, force: true }));
    // The daemons' users pass through it.
    await chmod(folder, 0o711);
    const uplink = await addUplink();
    undo.defer(() => removeUplink(uplink));
    const thaw = new ThrowawayThaw(options, folder);
    undo.defer(() => thaw.#end());
    await thaw.#start(uplink);
    thaw.#undo = undo.move();
    return thaw;
  }

  /** Of `thaw up`; the daemons are its children. */
  get pid(): number {
    return this.#up?.pid ?? 0;
  }

  /** Its processes, namespaces, links, rules, mounts and claims on this machine, in plain words. */
  leftovers(): Promise<string[]> {
    return leftovers(this.#folder, this.#instance);
  }

  /** Runs `thaw …` and returns its standard output. Throws with what it says when it fails. */
  async cli(args: readonly string[], input = ''): Promise<string> {
    this.#options.signal?.throwIfAborted();
    const child = spawn(this.#program, args, {
      env: this.#environment({ THAW_URL: this.url }),
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(this.#options.signal && { signal: this.#options.signal, killSignal: 'SIGINT' }),
    });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => {
        output[name] += text;
      });
    }
    child.stdin.on('error', () => {});
    child.stdin.end(input);
    const [code] = (await once(child, 'close')) as [number | null];
    if (code === 0) return output.stdout;
    throw new Error(`thaw ${args.slice(0, 2).join(' ')}: ${output.stderr.trim() || `exit code ${code}`}`);
  }

  /** One request; throws with the API's own words unless it succeeds. */
  async api<T>(method: string, where: string, body?: unknown): Promise<T> {
    return this.#request(method, where, body, this.#options.signal);
  }

  /** Ends its sandboxes and itself; folders and uplink stay for a look until it is disposed of. */
  async stop(): Promise<void> {
    const up = this.#up;
    if (up === undefined) return;
    await this.#destroyAll();
    this.#up = undefined;
    const code = await stopped(up);
    if (code !== 0) throw new Error(`thaw up ended with ${code}: ${this.#lastWords()}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }

  async #start(uplink: string): Promise<void> {
    // Should this program be killed, the daemons end too. A group of its own: Ctrl-C is handled here, in order.
    const up = spawn(
      '/usr/bin/setpriv',
      ['--pdeathsig', 'INT', '--', this.#program, 'up', '--json', '--verbose'],
      {
        env: this.#environment({
          THAW_LISTEN: '127.0.0.1:0',
          THAW_UPLINK: uplink,
          ...this.#options.env,
        }),
        stdio: ['ignore', 'pipe', 'pipe'],
        detached: true,
      },
    );
    this.#up = up;
    createInterface({ input: up.stderr }).on('line', (line) => {
      this.#lines.push(line);
      if (process.env.THAW_DEMO_VERBOSE !== undefined) process.stderr.write(`${line}\n`);
    });
    const ready = await Promise.race([firstLine(up), aborted(this.#options.signal)]);
    if (ready === undefined) throw new Error(`thaw up did not start: ${this.#lastWords()}`);
    const { url, proxy_url, key, data } = JSON.parse(ready) as Record<
      'url' | 'proxy_url' | 'key' | 'data',
      string
    >;
    this.url = url;
    this.proxyUrl = proxy_url;
    this.key = key;
    this.data = data;
    this.#instance = await instanceOf(data);
  }

  async #request<T>(method: string, where: string, body?: unknown, signal?: AbortSignal): Promise<T> {
    const response = await fetch(`${this.url}${where}`, {
      method,
      headers: {
        'X-API-Key': this.key,
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(signal && { signal }),
    });
    const text = await response.text();
    if (response.ok) return (text === '' ? undefined : JSON.parse(text)) as T;
    throw new Error(`${method} ${where}: ${messageOf(text) ?? `HTTP ${response.status}`}`);
  }

  async #destroyAll(): Promise<void> {
    const left = await this.#request<{ id: string }[]>('GET', '/v1/sandboxes');
    for (const { id } of left) await this.#request('DELETE', `/v1/sandboxes/${id}`);
  }

  /** As `stop`, with force where it does not work. */
  async #end(): Promise<void> {
    const up = this.#up;
    this.#up = undefined;
    if (up !== undefined) {
      if (this.url !== '') await this.#destroyAll().catch(() => {});
      await stopped(up);
    }
    await endProcesses(this.#folder);
  }

  get #program(): string {
    return path.join(this.#options.version, 'bin/thaw');
  }

  #environment(own: Record<string, string>): Record<string, string> {
    return {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/root',
      THAW_DATA: path.join(this.#folder, 'data'),
      THAW_RUN: path.join(this.#folder, 'run'),
      ...own,
    };
  }

  #lastWords(): string {
    return ['', ...this.#lines.slice(-ERROR_LINES)].join('\n  ');
  }
}

/** Asks it to end; its exit code, -1 if it had to be killed. */
async function stopped(up: ChildProcess): Promise<number> {
  if (up.exitCode !== null) return up.exitCode;
  if (up.signalCode !== null) return -1;
  const exit = once(up, 'exit') as Promise<[number | null]>;
  up.kill('SIGINT');
  const [code] = await Promise.race([exit, sleep(STOP_WITHIN_MS, [-1], { ref: false })]);
  if (code === -1) up.kill('SIGKILL');
  return code ?? -1;
}

function firstLine(child: ChildProcess): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    createInterface({ input: child.stdout! }).once('line', resolve);
    child.once('error', reject);
    child.once('exit', () => resolve(undefined));
  });
}

function aborted(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => {
    if (signal?.aborted) reject(signal.reason);
    signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

function messageOf(text: string): string | undefined {
  try {
    return (JSON.parse(text) as { error?: { message?: string } }).error?.message;
  } catch {
    return undefined;
  }
}
