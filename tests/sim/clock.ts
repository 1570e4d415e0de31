/** The clock of a run: timers of this process fire when the run says so, in their order, never by themselves. */
import { AsyncResource } from 'node:async_hooks';

class Timer {
  readonly clock: Clock;
  readonly everyMs: number | undefined;
  readonly delayMs: number;
  readonly run: () => void;
  atMs: number;

  constructor(clock: Clock, run: () => void, delayMs: number, everyMs: number | undefined) {
    this.clock = clock;
    this.run = AsyncResource.bind(run);
    this.delayMs = delayMs;
    this.everyMs = everyMs;
    this.atMs = clock.nowMs + delayMs;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }

  refresh(): this {
    this.atMs = this.clock.nowMs + this.delayMs;
    return this;
  }

  close(): this {
    this.clock.clear(this);
    return this;
  }

  [Symbol.dispose](): void {
    this.clock.clear(this);
  }
}

type Callback = (...args: never[]) => void;

/** Stands in for the global timers from its making until it is disposed. */
export class Clock implements Disposable {
  nowMs = 0;
  readonly #timers = new Set<Timer>();
  readonly #real = { setTimeout, setInterval, clearTimeout, clearInterval };
  readonly #now = performance.now;

  constructor() {
    const add = (run: Callback, delayMs = 0, args: never[] = [], repeat = false): Timer => {
      const delay = Math.max(1, delayMs);
      const timer = new Timer(this, () => run(...args), delay, repeat ? delay : undefined);
      this.#timers.add(timer);
      return timer;
    };
    const clear = (timer: unknown): void => {
      if (timer instanceof Timer) this.clear(timer);
      else this.#real.clearTimeout(timer as NodeJS.Timeout);
    };
    Object.assign(globalThis, {
      setTimeout: (run: Callback, delayMs?: number, ...args: never[]) => add(run, delayMs, args),
      setInterval: (run: Callback, delayMs?: number, ...args: never[]) => add(run, delayMs, args, true),
      clearTimeout: clear,
      clearInterval: clear,
    });
    performance.now = () => this.nowMs;
  }

  clear(timer: Timer): void {
    this.#timers.delete(timer);
  }

  /** Goes on to the next timer and fires it. False if there is none. */
  advance(): boolean {
    let next: Timer | undefined;
    for (const timer of this.#timers) if (next === undefined || timer.atMs < next.atMs) next = timer;
    if (next === undefined) return false;
    this.nowMs = Math.max(this.nowMs, next.atMs);
    if (next.everyMs === undefined) this.#timers.delete(next);
    else next.atMs += next.everyMs;
    next.run();
    return true;
  }

  [Symbol.dispose](): void {
    this.#timers.clear();
    Object.assign(globalThis, this.#real);
    performance.now = this.#now;
  }
}
