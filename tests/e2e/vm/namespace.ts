/** A throw-away network namespace with a tap, as a slot has one, and a helper process inside it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Prepared } from '../../../packages/host-agent/src/guest/control.ts';
import { run } from '../../../packages/host-agent/src/os/run.ts';
import type { Call } from './inside.ts';

interface Result {
  stdout: string;
  stderr: string;
  exitCode: number;
}

let created = 0;

export class Namespace implements AsyncDisposable {
  readonly name: string;
  readonly #inside: ChildProcess;
  readonly #waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: Error) => void }
  >();
  #lastId = 0;

  private constructor(name: string, inside: ChildProcess) {
    this.name = name;
    this.#inside = inside;
    createInterface({ input: inside.stdout! }).on('line', (line) => {
      const { id, result, error } = JSON.parse(line) as { id: number; result?: unknown; error?: string };
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) waiting?.resolve(result);
      else waiting?.reject(new Error(error));
    });
  }

  /** The tap belongs to `uid`. */
  static async create(uid: number): Promise<Namespace> {
    const name = `thawtest-${process.pid}-${++created}`;
    await run(['ip', 'netns', 'add', name]);
    try {
      const ip = (...args: string[]) => run(['ip', '-n', name, ...args]);
      await ip('link', 'set', 'lo', 'up');
      await ip('tuntap', 'add', 'tap0', 'mode', 'tap', 'user', String(uid));
      await ip('link', 'set', 'tap0', 'address', '02:fc:00:00:00:06', 'up');
      await ip('address', 'add', '169.254.0.22/30', 'dev', 'tap0');
      const neighbour = ['169.254.0.21', 'lladdr', '02:fc:00:00:00:05', 'dev', 'tap0', 'nud', 'permanent'];
      await ip('neigh', 'replace', ...neighbour);
      const program = path.join(import.meta.dirname, 'inside.ts');
      const inside = spawn('ip', ['netns', 'exec', name, process.execPath, program], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      return new Namespace(name, inside);
    } catch (error) {
      await run(['ip', 'netns', 'delete', name]);
      throw error;
    }
  }

  get path(): string {
    return `/run/netns/${this.name}`;
  }

  /** Milliseconds until the guest answered. */
  health(timeoutMs: number): Promise<number> {
    return this.#call({ op: 'health', timeoutMs }) as Promise<number>;
  }

  async init(counter: number, timeoutMs = 30_000): Promise<void> {
    await this.#call({ op: 'init', timeoutMs, counter });
  }

  prepare(): Promise<Prepared> {
    return this.#call({ op: 'prepare', timeoutMs: 5000 }) as Promise<Prepared>;
  }

  async thaw(): Promise<void> {
    await this.#call({ op: 'thaw', timeoutMs: 5000 });
  }

  /** Standard output of a shell script that succeeds. */
  async sh(script: string, timeoutMs = 60_000): Promise<string> {
    const result = (await this.#call({ op: 'exec', timeoutMs, script })) as Result;
    if (result.exitCode !== 0) throw new Error(`${script}: ${result.exitCode}: ${result.stderr}`);
    return result.stdout;
  }

  #call(call: Omit<Call, 'id'>): Promise<unknown> {
    const id = ++this.#lastId;
    this.#inside.stdin!.write(`${JSON.stringify({ ...call, id })}\n`);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#inside, 'close');
    this.#inside.stdin!.end();
    await closed;
    await run(['ip', 'netns', 'delete', this.name]);
  }
}
