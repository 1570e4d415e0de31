/**
 * One process that `thaw up` keeps running.
 *
 *   stopped ─► starting ─► running ──(it exits)──► waiting ─► starting …
 *                 │ not ready in time, or it exits before: the first start fails, a later one is tried again
 *   stop: from every state to stopped; the process gets its signal, and SIGKILL after a grace time
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ThawError } from '@thaw/api';
import type { User } from './user.ts';

export interface DaemonOptions {
  name: string;
  argv: readonly [string, ...string[]];
  env: Record<string, string>;
  /** root unless given. */
  user?: User;
  /** Asks the process to end; also sent to it by the kernel when `thaw up` dies without a word. */
  stopSignal: 'SIGTERM' | 'SIGINT';
  stopWithinMs: number;
  readyWithinMs: number;
  /** Whether process `pid` does its work now; asked again and again until it does. */
  ready: (pid: number) => Promise<boolean>;
  /** Every line it prints. */
  onLine: (line: string) => void;
  onRestart: (reason: string) => void;
  /** Aborted while it starts: it is stopped again, and the start fails. */
  signal?: AbortSignal;
}

const READY_EVERY_MS = 50;
const RESTART_AFTER_MS = [100, 250, 500, 1000, 2000, 5000];
/** A process that ran this long starts anew without delay when it exits. */
const HEALTHY_AFTER_MS = 30_000;
const LINES_KEPT = 20;

export class Daemon implements AsyncDisposable {
  readonly #options: DaemonOptions;
  #child: ChildProcess | undefined;
  #ended: Promise<string> = Promise.resolve('it never ran');
  #stopping = false;
  #supervising: Promise<void> = Promise.resolve();
  #wake: (() => void) | undefined;
  readonly #lines: string[] = [];

  private constructor(options: DaemonOptions) {
    this.#options = options;
  }

  /** Resolves when it is ready. Throws `unavailable` with its last words when it does not become so. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    options.signal?.throwIfAborted();
    const daemon = new Daemon(options);
    const abort = () => void daemon.stop();
    options.signal?.addEventListener('abort', abort);
    try {
      await daemon.#startOnce();
    } catch (error) {
      await daemon.stop();
      options.signal?.throwIfAborted();
      throw error;
    } finally {
      options.signal?.removeEventListener('abort', abort);
    }
    daemon.#supervising = daemon.#supervise();
    return daemon;
  }

  get name(): string {
    return this.#options.name;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#wake?.();
    const child = this.#child;
    if (child?.exitCode === null && child.signalCode === null) {
      child.kill(this.#options.stopSignal);
      const force = setTimeout(() => child.kill('SIGKILL'), this.#options.stopWithinMs);
      await this.#ended;
      clearTimeout(force);
    }
    await this.#supervising;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #supervise(): Promise<void> {
    for (let failures = 0; ; ) {
      const started = performance.now();
      const reason = await this.#ended;
      if (this.#stopping) return;
      if (performance.now() - started > HEALTHY_AFTER_MS) failures = 0;
      this.#options.onRestart(reason);
      await this.#pause(RESTART_AFTER_MS[Math.min(failures, RESTART_AFTER_MS.length - 1)]!);
      if (this.#stopping) return;
      failures++;
      // What fails to become ready is ended, so that the next round starts it again.
      await this.#startOnce().catch(() => this.#child?.kill('SIGKILL'));
    }
  }

  async #startOnce(): Promise<void> {
    const { argv, env, user, stopSignal, name, ready, readyWithinMs } = this.#options;
    const identity =
      user === undefined ? [] : ['--reuid', `${user.uid}`, '--regid', `${user.gid}`, '--clear-groups'];
    const death = ['--pdeathsig', stopSignal.slice(3)];
    const child = spawn('/usr/bin/setpriv', [...death, ...identity, '--', ...argv], {
      env,
      cwd: '/',
      stdio: ['ignore', 'pipe', 'pipe'],
      // Of its own process group: Ctrl-C in the terminal is for `thaw up`, which ends its daemons in order.
      detached: true,
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => this.#keep(line));
    }
    let running = true;
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('close', (code, signal) => resolve(signal === null ? `exit code ${code}` : signal));
    });
    void this.#ended.then(() => {
      running = false;
    });
    const deadline = performance.now() + readyWithinMs;
    while (running && !this.#stopping && performance.now() < deadline) {
      if (child.pid !== undefined && (await ready(child.pid).catch(() => false))) return;
      await this.#pause(READY_EVERY_MS);
    }
    const why = running ? `is not ready after ${readyWithinMs / 1000} s` : `ended (${await this.#ended})`;
    throw new ThawError('unavailable', [`${name} ${why}`, ...this.#lines].join('\n  '));
  }

  #keep(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > LINES_KEPT) this.#lines.shift();
    this.#options.onLine(line);
  }

  /** Sleeps, but not longer than until `stop`. */
  async #pause(forMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, forMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }
}
