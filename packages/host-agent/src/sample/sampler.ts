/**
 * Asks every running sandbox each few seconds how much it uses. Nobody waits for it and it waits for nobody: it is no call
 * into the sandbox, so it neither keeps one from being paused nor counts as use, and it asks only what runs anyway.
 */
import { readLoad } from '../guest/load.ts';
import type { Host } from '../host.ts';
import type { Machine } from '../sandbox/machine.ts';
import { SandboxPaths } from '../sandbox/paths.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import { readRing, type Sample, writeSample } from './ring.ts';

export interface Pace {
  everyMs: number;
  /** A VM that has just started is left alone for so long: what it needs first is being recorded. */
  settleMs: number;
  lookEveryMs: number;
  answerMs: number;
  atOnce: number;
}

const PACE: Pace = { everyMs: 5000, settleMs: 1500, lookEveryMs: 500, answerMs: 3000, atOnce: 8 };

interface Meter {
  machine: Machine;
  /** By `performance.now()`. */
  dueAt: number;
  isBusy: boolean;
  /** The number of its next sample; undefined until its file was read. */
  next: number | undefined;
}

export class Sampler implements AsyncDisposable {
  readonly #host: Pick<Host, 'config' | 'log' | 'registry'>;
  readonly #pace: Pace;
  readonly #meters = new WeakMap<Sandbox, Meter>();
  readonly #latest = new WeakMap<Sandbox, Sample>();
  readonly #open = new Set<Promise<void>>();
  #timer: NodeJS.Timeout | undefined;

  constructor(host: Pick<Host, 'config' | 'log' | 'registry'>, pace: Partial<Pace> = {}) {
    this.#host = host;
    this.#pace = { ...PACE, ...pace };
  }

  /** Nothing is asked before. */
  begin(): void {
    this.#timer ??= setInterval(() => this.#look(), this.#pace.lookEveryMs);
  }

  /** Of this sandbox, both times included, oldest first. Throws `not_found`. */
  async between(id: string, fromMs = 0, toMs = Number.POSITIVE_INFINITY): Promise<Sample[]> {
    const sandbox = this.#host.registry.get(id);
    const { samples } = await readRing(this.#file(sandbox));
    return samples.filter(({ atMs }) => atMs >= fromMs && atMs <= toMs);
  }

  async latest(id: string): Promise<Sample | undefined> {
    const sandbox = this.#host.registry.get(id);
    return this.#latest.get(sandbox) ?? (await readRing(this.#file(sandbox))).samples.at(-1);
  }

  /** Waits for what is being asked. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#open);
  }

  #look(): void {
    const now = performance.now();
    for (const sandbox of this.#host.registry.all()) {
      if (this.#open.size >= this.#pace.atOnce) return;
      const machine = runningOf(sandbox);
      if (machine === undefined) continue;
      const meter = this.#meterOf(sandbox, machine, now);
      if (meter.isBusy || meter.dueAt > now) continue;
      meter.dueAt = now + this.#pace.everyMs;
      meter.isBusy = true;
      const asking = this.#sample(sandbox, meter)
        .catch((error) => this.#host.log.debug({ sandbox: sandbox.id, err: error }, 'no sample'))
        .finally(() => {
          meter.isBusy = false;
          this.#open.delete(asking);
        });
      this.#open.add(asking);
    }
  }

  #meterOf(sandbox: Sandbox, machine: Machine, now: number): Meter {
    const known = this.#meters.get(sandbox);
    if (known?.machine === machine) return known;
    const meter = { machine, dueAt: now + this.#pace.settleMs, isBusy: false, next: known?.next };
    this.#meters.set(sandbox, meter);
    return meter;
  }

  async #sample(sandbox: Sandbox, meter: Meter): Promise<void> {
    const load = await readLoad(meter.machine.guest, AbortSignal.timeout(this.#pace.answerMs));
    const sample = { atMs: Date.now(), ...load };
    const file = this.#file(sandbox);
    const number = meter.next ?? (await readRing(file)).next;
    // The folder of one that is being destroyed is left alone.
    if (runningOf(sandbox) !== meter.machine) return;
    this.#latest.set(sandbox, sample);
    meter.next = number + 1;
    await writeSample(file, number, sample);
  }

  #file({ id }: Sandbox): string {
    return new SandboxPaths(this.#host.config, id).samples;
  }
}

function runningOf({ state }: Sandbox): Machine | undefined {
  return state.status === 'running' && !state.machine.isEnding ? state.machine : undefined;
}
