/**
 * Decides what happens next. Everything that could happen in another order waits at a gate: each step of the host agent,
 * each call of a fake, each RPC and each use of the database. Only when nothing else moves in this process is one of
 * them let through, chosen by the seed: a run is the same each time.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from './random.ts';

/** One life of a daemon. What it still has at gates when it ends stays there for ever, as after a kill. */
export class Life {
  alive = true;
  readonly name: string;
  readonly ended: Promise<void>;
  #end: () => void = () => {};

  constructor(name: string) {
    this.name = name;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  end(): void {
    this.alive = false;
    this.#end();
  }
}

interface Waiting {
  life: Life;
  label: string;
  /** The turn in which it came. Those of one turn have no order but that of their labels. */
  turn: number;
  open: () => void;
  fail: (error: Error) => void;
}

export type Gate = (label: string) => Promise<void>;

const IDLE_TURNS = 3;
const SPINS_MAX = 40;

export class Scheduler {
  readonly #random: Random;
  #waiting: Waiting[] = [];
  #busy = 0;
  /** Resolves when some work of `during` ends. */
  #less: PromiseWithResolvers<void> = Promise.withResolvers();
  #turn = 0;
  /** Which gates were opened, and which of them failed: equal for equal seeds. */
  readonly trace: string[] = [];
  /** Makes the step of this label fail. */
  faultAt: (label: string) => Error | undefined = () => undefined;

  constructor(random: Random) {
    this.#random = random;
  }

  gate(life: Life, label: string): Promise<void> {
    return new Promise((open, fail) => {
      if (life.alive) this.#waiting.push({ life, label, turn: this.#turn, open, fail });
    });
  }

  gateOf(life: Life): Gate {
    return (label) => this.gate(life, label);
  }

  /** Work outside this process that must end before anything is decided. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#busy += 1;
    try {
      return await work();
    } finally {
      this.#busy -= 1;
      this.#less.resolve();
      this.#less = Promise.withResolvers();
    }
  }

  /** Resolves when nothing moves any more but what waits at gates or for the clock. */
  async settle(): Promise<void> {
    for (let idle = 0, spins = 0; idle < IDLE_TURNS; spins++) {
      if (this.#busy > 0) await this.#less.promise;
      // Who waits for long leaves the processor to those it waits for.
      else if (spins > SPINS_MAX) await sleep(1);
      else await new Promise((resolve) => setImmediate(resolve));
      idle = this.#busy > 0 || waitsForKernel() ? 0 : idle + 1;
    }
    this.#turn += 1;
    this.#waiting = this.#waiting
      .filter(({ life }) => life.alive)
      .sort((a, b) => a.turn - b.turn || compare(`${a.life.name} ${a.label}`, `${b.life.name} ${b.label}`));
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Lets one through. */
  step(): void {
    const [chosen] = this.#waiting.splice(this.#random.below(this.#waiting.length), 1);
    if (chosen === undefined) return;
    const fault = this.faultAt(chosen.label);
    this.note(`${chosen.life.name} ${chosen.label}${fault === undefined ? '' : ' FAILS'}`);
    if (fault === undefined) chosen.open();
    else chosen.fail(fault);
  }

  note(line: string): void {
    this.trace.push(line);
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Whether this process waits for the kernel: for files, names or connections, but not for those who may call it. */
function waitsForKernel(): boolean {
  return process.getActiveResourcesInfo().some((kind) => /Req|Connect|Write|Shutdown/.test(kind));
}
