/**
 * One sandbox on this host and the rule of who may change it.
 *
 *   pending ─► running ─► pausing ─► paused ─► resuming ─► running        any ─► stopping ─► gone
 *                 └──► snapshotting ─► running                 VM died by itself ─► error
 *
 * One verb at a time: the same verb again joins the one in flight, destroy waits for it, any other is refused.
 * Calls into the guest (exec, files) are admitted while running; pausing stops admitting and drains.
 */
import { ThawError } from '@thaw/api';
import type { BuildSize } from '../build/measure.ts';
import type { Machine } from './machine.ts';
import type { SandboxRecord } from './record.ts';

export type SandboxState =
  | { status: 'pending' }
  | { status: 'running'; machine: Machine }
  | { status: 'pausing'; machine: Machine }
  | { status: 'snapshotting'; machine: Machine; thawed: Promise<void> }
  | { status: 'paused' }
  | { status: 'resuming' }
  | { status: 'stopping' }
  | { status: 'error'; reason: string };

export type Verb = 'create' | 'pause' | 'resume' | 'snapshot' | 'fork' | 'network' | 'destroy' | 'lost';

/** Each holds a connection to the guest. */
const CALLS_MAX = 512;

export class Sandbox {
  record: SandboxRecord;
  state: SandboxState;
  /** What the sandbox would resume from; absent before the first seal. */
  build: BuildSize | undefined;
  /** Milliseconds of each step of the last verb. */
  timings: ReadonlyMap<string, number> = new Map();
  #verb: { name: Verb; key: string; done: Promise<unknown> } | undefined;
  #calls = new Set<AbortController>();
  #idle: (() => void) | undefined;

  constructor(record: SandboxRecord, state: SandboxState) {
    this.record = record;
    this.state = state;
  }

  get id(): string {
    return this.record.id;
  }

  /**
   * Runs `work` as the only verb on this sandbox. The same verb with the same `key` in flight: its result.
   * Throws `invalid_state` when another one is in flight; destroy waits for that instead, and so does everybody for the
   * end of what a lost VM leaves.
   */
  async exclusive<T>(name: Verb, work: () => Promise<T>, key = ''): Promise<T> {
    if (this.#verb?.name === name && this.#verb.key === key) return this.#verb.done as Promise<T>;
    while (this.#verb !== undefined) {
      if (name !== 'destroy' && name !== 'lost' && this.#verb.name !== 'lost') throw this.refused();
      await this.#verb.done.catch(() => {});
    }
    const done = work();
    const verb = { name, key, done };
    this.#verb = verb;
    try {
      return await done;
    } finally {
      if (this.#verb === verb) this.#verb = undefined;
    }
  }

  /** The machine of a running sandbox. Throws `invalid_state` in every other state. */
  running(): Machine {
    if (this.state.status !== 'running') throw this.refused();
    return this.state.machine;
  }

  refused(): ThawError {
    return new ThawError('invalid_state', `the sandbox is ${this.state.status}`);
  }

  /** Runs a call into the guest; the signal tells it that the VM is about to end. */
  async call<T>(work: (machine: Machine, signal: AbortSignal) => Promise<T>): Promise<T> {
    const machine = await this.#admitting();
    const call = this.#admit();
    try {
      return await work(machine, call.signal);
    } catch (error) {
      throw call.signal.aborted ? call.signal.reason : error;
    } finally {
      this.#leave(call, machine);
    }
  }

  /** The same for a call that yields. */
  async *callStream<T>(work: (machine: Machine, signal: AbortSignal) => AsyncIterable<T>): AsyncGenerator<T> {
    const machine = await this.#admitting();
    const call = this.#admit();
    try {
      yield* work(machine, call.signal);
    } catch (error) {
      throw call.signal.aborted ? call.signal.reason : error;
    } finally {
      this.#leave(call, machine);
    }
  }

  /** Waits up to `timeoutMs` for open calls to end by themselves. */
  async drain(timeoutMs: number): Promise<void> {
    if (this.#calls.size === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.#idle = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#idle = undefined;
  }

  /** Ends the calls still open with `unavailable`. */
  endCalls(): void {
    for (const call of this.#calls) call.abort(new ThawError('unavailable', 'the sandbox has stopped'));
  }

  /** While a snapshot has the guest frozen, a call waits for the moment it goes on. */
  async #admitting(): Promise<Machine> {
    if (this.state.status === 'snapshotting') {
      const { machine, thawed } = this.state;
      await thawed;
      return machine;
    }
    return this.running();
  }

  #admit(): AbortController {
    if (this.#calls.size >= CALLS_MAX)
      throw new ThawError('exhausted', `a sandbox takes at most ${CALLS_MAX} calls at once`);
    const call = new AbortController();
    this.#calls.add(call);
    this.record.lastActiveAt = nowSeconds();
    return call;
  }

  #leave(call: AbortController, machine: Machine): void {
    this.#calls.delete(call);
    machine.answered();
    this.record.lastActiveAt = nowSeconds();
    if (this.#calls.size === 0) this.#idle?.();
  }
}

export function nowSeconds(): number {
  return Math.floor(Date.now() / 1000);
}
