/**
 * Places for VMs that are made before anybody asks.
 *
 *   missing ─► being made ─► ready ─► a VMM waits in it ─► taken: a VM starts in it ─► ended with its VM
 *                  └── failed ─┴────── lost, or dropped for its slot
 *
 * They end with the host agent.
 */
import { isDeepStrictEqual } from 'node:util';
import { newSandboxId } from '@thaw/api';
import { type Host, newSteps } from '../host.ts';
import { OPEN_EGRESS } from '../network/egress.ts';
import { type Limits, limitsOf } from '../os/cgroup/limits.ts';
import type { VmmKind } from '../vmm/vmm.ts';
import { AHEAD, makePlace, type Place, type Size } from './place.ts';

/** Whoever has just been given one starts and works first. */
const REFILL_MS = 1000;
/** While others start. */
const BUSY_MS = 250;
/** After a failure, or after they had to make room. */
const RETRY_MS = 60_000;
/** Until a VM starts: enough for a VMM that has no memory yet, and no share of busy processors. */
const WAITING: Limits = { ...limitsOf({ vcpus: 1, memoryMb: 0 }), shares: 0 };

export class Places implements AsyncDisposable {
  readonly #host: () => Host;
  readonly #size: number;
  readonly #ready: Place[] = [];
  /** The name of the one that is being made. */
  #making: string | undefined;
  #filling: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isClosing = false;

  constructor(host: () => Host, size: number) {
    this.#host = host;
    this.#size = size;
  }

  /** `waiting`: of those that are ready, how many have a VMM. */
  counts(): { ready: number; waiting: number; making: number } {
    const waiting = this.#ready.filter(({ waiting }) => waiting !== undefined).length;
    return { ready: this.#ready.length, waiting, making: this.#making === undefined ? 0 : 1 };
  }

  get names(): string[] {
    return [...this.#ready.map(({ name }) => name), ...(this.#making === undefined ? [] : [this.#making])];
  }

  /**
   * One in which a VM of that VMM can start, if there is one, with what waits for its `size` if it is one that can be
   * waited for; it is the caller's from now on.
   */
  take(vmm: VmmKind, size?: Size): Place | undefined {
    const fits = this.#ready.filter((place) => !place.isLost && [undefined, vmm].includes(place.vmm));
    const place =
      fits.find(({ waiting }) => isDeepStrictEqual(waiting, size)) ??
      fits.find(({ waiting }) => waiting === undefined) ??
      fits[0];
    if (place === undefined) return undefined;
    this.#ready.splice(this.#ready.indexOf(place), 1);
    this.refill();
    return place;
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
    if (this.#isClosing || this.#size === 0 || this.#filling !== undefined) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#filling = this.#fill()
        .catch((error: unknown) => {
          this.#host().log.warn({ err: error }, 'a place for a VM could not be made');
          return RETRY_MS;
        })
        .then((retryMs) => {
          this.#filling = undefined;
          if (retryMs !== undefined) this.refill(retryMs);
        });
    }, afterMs);
    this.#timer.unref();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosing = true;
    clearTimeout(this.#timer);
    await this.#filling;
    await this.drop();
  }

  /** Milliseconds until it is to be tried again, if it is. */
  async #fill(): Promise<number | undefined> {
    const host = this.#host();
    while (!this.#isClosing) {
      const step = this.#next(host);
      if (step === undefined) return undefined;
      if (isStarting(host)) return BUSY_MS;
      await step();
    }
    return undefined;
  }

  /** Half of them have a VMM: clones whose memory is mapped have no use for one. */
  #next(host: Host): (() => Promise<void>) | undefined {
    const lost = this.#ready.find(({ isLost }) => isLost);
    if (lost !== undefined) return () => this.#discard(lost);
    const size = commonest(host);
    const has = this.#ready.filter(({ waiting }) => waiting !== undefined);
    const right = has.filter(({ waiting }) => isDeepStrictEqual(waiting, size));
    const missing = size !== undefined && right.length < Math.ceil(this.#size / 2);
    const wrong = has.find((place) => !right.includes(place));
    if (wrong !== undefined) return () => this.#make(host, wrong, missing ? size : undefined);
    if (this.#ready.length < this.#size) return () => this.#make(host, undefined, missing ? size : undefined);
    const without = this.#ready.find(({ waiting }) => waiting === undefined);
    return missing && without !== undefined ? () => this.#make(host, without, size) : undefined;
  }

  async #discard(place: Place): Promise<void> {
    this.#ready.splice(this.#ready.indexOf(place), 1);
    await place[Symbol.asyncDispose]();
  }

  /** Goes on with `old`, or makes another. */
  async #make(host: Host, old: Place | undefined, size: Size | undefined): Promise<void> {
    const name = old?.name ?? newSandboxId();
    this.#making = name;
    try {
      await using undo = new AsyncDisposableStack();
      if (old !== undefined) this.#ready.splice(this.#ready.indexOf(old), 1);
      undo.use(old);
      const steps = newSteps(host);
      const wish = { name, limits: WAITING, egress: OPEN_EGRESS, prepared: true };
      const place = old ?? undo.use(await makePlace(host, steps, AHEAD, wish));
      await place.expect(host, steps, AHEAD, size);
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
function commonest(host: Host): Size | undefined {
  if (host.vmm.startAhead === undefined) return undefined;
  const counts = new Map<string, { size: Size; count: number }>();
  for (const { record } of host.registry.all()) {
    const size = { vcpus: record.vcpus, memoryMb: record.memoryMb };
    const key = JSON.stringify(size);
    counts.set(key, { size, count: (counts.get(key)?.count ?? 0) + 1 });
  }
  const order = [...counts.values()].sort((a, b) => b.count - a.count || a.size.memoryMb - b.size.memoryMb);
  return order[0]?.size;
}
