/**
 * Places for VMs that are made before anybody asks.
 *
 *   missing ─► being made ─► ready ─► a VMM waits in it ─► taken: a VM starts in it ─► ended with its VM
 *                  └── failed ─┴────── lost, or dropped for its slot
 *
 * They end with the host agent.
 */
import { existsSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { newSandboxId } from '@thaw/api';
import { type Host, newSteps } from '../host.ts';
import { OPEN_EGRESS } from '../network/egress.ts';
import { type Limits, limitsOf } from '../os/cgroup/limits.ts';
import type { Chain, VmmKind } from '../vmm/vmm.ts';
import { AHEAD, makePlace, type Place, type Wait } from './place.ts';
import { Refill } from './refill.ts';

/** Whoever has just been given one starts and works first. */
const REFILL_MS = 1000;
/** While others start. */
const BUSY_MS = 250;
/** After a failure, or after they had to make room. */
const RETRY_MS = 60_000;
/** Until a VM starts: enough for a VMM that has no memory yet, and no share of busy processors. */
const WAITING: Limits = { ...limitsOf({ vcpus: 1, memoryMb: 0 }), shares: 0 };

/** Of the latest creates. */
const CLONES_MAX = 16;

/** `memory`: of the build that is mapped. */
interface Awaited {
  wait: Wait;
  memory?: Chain;
}

export class Places implements AsyncDisposable {
  readonly #host: () => Host;
  readonly #size: number;
  readonly #ready: Place[] = [];
  /** What creates started from, the latest last. */
  readonly #clones: Awaited[] = [];
  /** The name of the one that is being made. */
  #making: string | undefined;
  readonly #refill: Refill;

  constructor(host: () => Host, size: number) {
    this.#host = host;
    this.#size = size;
    this.#refill = new Refill({
      fill: () => this.#fill(),
      failed: (error) => host().log.warn({ err: error }, 'a place for a VM could not be made'),
      retryMs: RETRY_MS,
    });
  }

  /** `waiting`: of those that are ready, how many have a VMM; `making`: whether they are not yet as they should be. */
  counts(): { ready: number; waiting: number; making: number } {
    const waiting = this.#ready.filter(({ waiting }) => waiting !== undefined).length;
    const making = this.#making !== undefined || (this.#size > 0 && this.#next(this.#host()) !== undefined);
    return { ready: this.#ready.length, waiting, making: making ? 1 : 0 };
  }

  get names(): string[] {
    return [...this.#ready.map(({ name }) => name), ...(this.#making === undefined ? [] : [this.#making])];
  }

  /**
   * One in which a VM of that VMM can start, if there is one, with the VMM that waits for this if there is one that does; it is
   * the caller's from now on.
   */
  take(vmm: VmmKind, wait?: Wait): Place | undefined {
    const fits = this.#ready.filter((place) => !place.isLost && [undefined, vmm].includes(place.vmm));
    const place =
      fits.find(({ waiting }) => isDeepStrictEqual(waiting, wait)) ??
      fits.find(({ waiting }) => waiting === undefined) ??
      fits[0];
    if (place === undefined) return undefined;
    this.#ready.splice(this.#ready.indexOf(place), 1);
    this.refill();
    return place;
  }

  /** Others may start from that build too, whose memory is mapped. */
  remember(wait: Wait, memory: Chain): void {
    const known = this.#clones.findIndex((clone) => isDeepStrictEqual(clone.wait, wait));
    if (known >= 0) this.#clones.splice(known, 1);
    this.#clones.push({ wait, memory });
    if (this.#clones.length > CLONES_MAX) this.#clones.shift();
  }

  /** Gives back all that are ready. False if there was none. */
  async drop(): Promise<boolean> {
    const dropped = this.#ready.splice(0);
    await Promise.all(dropped.map((place) => place[Symbol.asyncDispose]()));
    if (dropped.length > 0) this.refill(RETRY_MS);
    return dropped.length > 0;
  }

  /** Makes what is missing, in the background, one by one, and while nothing else starts. */
  refill(afterMs = REFILL_MS): void {
    if (this.#size === 0) return;
    this.#refill.after(afterMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#refill[Symbol.asyncDispose]();
    await this.drop();
  }

  /** Milliseconds until it is to be tried again, if it is. */
  async #fill(): Promise<number | undefined> {
    const host = this.#host();
    while (!this.#refill.isClosing) {
      const step = this.#next(host);
      if (step === undefined) return undefined;
      if (isStarting(host)) return BUSY_MS;
      await step();
    }
    return undefined;
  }

  #next(host: Host): (() => Promise<void>) | undefined {
    const lost = this.#ready.find(({ isLost }) => isLost);
    if (lost !== undefined) return () => this.#discard(lost);
    const missing = this.#wanted(host);
    const wrong: Place[] = [];
    for (const place of this.#ready) {
      if (place.waiting === undefined) continue;
      const at = missing.findIndex(({ wait }) => isDeepStrictEqual(wait, place.waiting));
      if (at < 0) wrong.push(place);
      else missing.splice(at, 1);
    }
    const [first] = missing;
    if (wrong.length > 0) return () => this.#make(host, wrong[0], first);
    if (this.#ready.length < this.#size) return () => this.#make(host, undefined, first);
    const without = this.#ready.find(({ waiting }) => waiting === undefined);
    return first !== undefined && without !== undefined ? () => this.#make(host, without, first) : undefined;
  }

  /** What VMMs are to wait for: in half of the places for a resume, in the others for what was last created. */
  #wanted(host: Host): Awaited[] {
    if (host.vmm.startAhead === undefined) return [];
    const size = commonest(host);
    // A build that is no more has no clones.
    const clone = this.#clones.findLast(({ memory }) => memory !== undefined && existsSync(memory.header));
    const resumes = Math.ceil(this.#size / 2);
    const fill = (count: number, awaited: Awaited | undefined) =>
      awaited === undefined ? [] : Array.from({ length: count }, () => awaited);
    return [...fill(resumes, size && { wait: size }), ...fill(this.#size - resumes, clone)];
  }

  async #discard(place: Place): Promise<void> {
    this.#ready.splice(this.#ready.indexOf(place), 1);
    await place[Symbol.asyncDispose]();
  }

  /** Goes on with `old`, or makes another. */
  async #make(host: Host, old: Place | undefined, next: Awaited | undefined): Promise<void> {
    const name = old?.name ?? newSandboxId();
    this.#making = name;
    try {
      await using undo = new AsyncDisposableStack();
      if (old !== undefined) this.#ready.splice(this.#ready.indexOf(old), 1);
      undo.use(old);
      const steps = newSteps(host);
      const wish = { name, limits: WAITING, egress: OPEN_EGRESS, prepared: true };
      const place = old ?? undo.use(await makePlace(host, steps, AHEAD, wish));
      await place.expect(host, steps, AHEAD, next);
      undo.move();
      this.#ready.push(place);
      if (old === undefined) this.#watch(place);
    } finally {
      this.#making = undefined;
    }
  }

  #watch(place: Place): void {
    const lost = () => {
      if (place.isLost && this.#ready.includes(place)) this.refill();
    };
    place.keeper.once('close', lost);
    place.keeper.on('exit', lost);
  }
}

function isStarting(host: Host): boolean {
  return host.registry.all().some(({ state }) => state.status === 'pending' || state.status === 'resuming');
}

/** The size that most sandboxes have, paused ones or such as will be; of several the smallest. */
function commonest(host: Host): Wait | undefined {
  const counts = new Map<string, { size: Wait; count: number }>();
  for (const { record } of host.registry.all()) {
    const { vcpus, memoryMb, diskMb } = record;
    const size = { vcpus, memoryMb, diskMb };
    const key = JSON.stringify(size);
    counts.set(key, { size, count: (counts.get(key)?.count ?? 0) + 1 });
  }
  const order = [...counts.values()].sort((a, b) => b.count - a.count || a.size.memoryMb - b.size.memoryMb);
  return order[0]?.size;
}
