/** What goes to each sandbox now: bounded, and cut when the sandbox is gone. */
import { setMaxListeners } from 'node:events';
import { GuestAgent } from './guest.ts';

/** Requests and tunnels that one sandbox, and all together, may have open. */
export interface LineLimits {
  perSandbox: number;
  all: number;
}

const SWEEP_EVERY_MS = 30_000;

/** One sandbox's, as long as it is where it is. */
export class Line {
  readonly #gone = new AbortController();
  /** Keeps connections. */
  readonly agent = new GuestAgent(this.#gone.signal, true);
  /** A new connection for each request: what must not be sent twice can't meet one that its service is closing. */
  readonly onceAgent = new GuestAgent(this.#gone.signal, false);
  readonly #cuts = new Set<() => void>();

  constructor() {
    // Everything that is being connected listens to it.
    setMaxListeners(0, this.#gone.signal);
  }

  get isGone(): boolean {
    return this.#gone.signal.aborted;
  }

  get isUnused(): boolean {
    return this.#cuts.size === 0 && Object.keys(this.agent.freeSockets).length === 0;
  }

  /** `cut` is called once if the sandbox leaves before what this answers is disposed of. */
  hold(cut: () => void): Disposable {
    this.#cuts.add(cut);
    return { [Symbol.dispose]: () => void this.#cuts.delete(cut) };
  }

  cut(): void {
    this.#gone.abort();
    for (const cut of [...this.#cuts]) cut();
    this.#cuts.clear();
    this.agent.destroy();
    this.onceAgent.destroy();
  }
}

export class Lines implements Disposable {
  readonly #limits: LineLimits;
  readonly #lines = new Map<string, Line>();
  /** Places taken, by sandbox. */
  readonly #taken = new Map<string, number>();
  readonly #timer = setInterval(() => this.#sweep(), SWEEP_EVERY_MS);
  #open = 0;

  constructor(limits: LineLimits) {
    this.#limits = limits;
  }

  of(id: string): Line {
    let line = this.#lines.get(id);
    if (line === undefined) {
      line = new Line();
      this.#lines.set(id, line);
    }
    return line;
  }

  /** A place for one request or tunnel, also while it waits; undefined if there is none. */
  take(id: string): Disposable | undefined {
    const here = (this.#taken.get(id) ?? 0) + 1;
    if (here > this.#limits.perSandbox || this.#open >= this.#limits.all) return undefined;
    this.#taken.set(id, here);
    this.#open += 1;
    let given = false;
    return {
      [Symbol.dispose]: () => {
        if (given) return;
        given = true;
        this.#open -= 1;
        const rest = (this.#taken.get(id) ?? 1) - 1;
        if (rest > 0) this.#taken.set(id, rest);
        else this.#taken.delete(id);
      },
    };
  }

  /** The sandbox is gone: everything to it is cut. */
  left(id: string): void {
    const line = this.#lines.get(id);
    this.#lines.delete(id);
    line?.cut();
  }

  cutAll(): void {
    for (const id of [...this.#lines.keys()]) this.left(id);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.cutAll();
  }

  #sweep(): void {
    for (const [id, line] of this.#lines) {
      if (!line.isUnused) continue;
      this.#lines.delete(id);
      line.cut();
    }
  }
}
