/**
 * Where a VM runs: a network slot, a control group and a keeper in it, with its jail as far as that depends on no sandbox.
 * Some are made before anybody asks: a start takes one and only says how much it may use and what it may reach.
 *
 *   missing ─► being made ─► ready ─► taken: a VM starts in it ─► ended with its VM
 *                  └── failed ─┴── lost, or dropped for its slot
 *
 * Those that are ready end with the host agent.
 */
import { rm } from 'node:fs/promises';
import { newSandboxId, ThawError } from '@thaw/api';
import { type Host, newSteps } from '../host.ts';
import type { Keeper } from '../keeper/keeper.ts';
import { type Egress, isOpen, OPEN_EGRESS } from '../network/egress.ts';
import type { Slot } from '../network/pool.ts';
import { type Limits, limitsOf } from '../os/cgroup/limits.ts';
import type { Steps } from '../os/step.ts';
import type { VmmKind } from '../vmm/vmm.ts';
import { endKeeper } from './machine.ts';
import { runFolder } from './paths.ts';
import type { SandboxRecord } from './record.ts';

/** Whoever has just been given one starts and works first. */
const REFILL_MS = 1000;
/** While others start. */
const BUSY_MS = 250;
/** After a failure, or after they had to make room. */
const RETRY_MS = 60_000;
const VERB = 'place';
/** Of the keeper, which is all there is until a VM starts. */
const WAITING: Limits = { ...limitsOf({ vcpus: 1, memoryMb: 0 }), shares: 0 };

interface Parts {
  name: string;
  slot: Slot;
  keeper: Keeper;
  /** Whose VMs the jail is for; built by the start if nobody's. */
  jail: VmmKind | undefined;
  rest: AsyncDisposableStack;
}

/** Disposing ends everything in it and gives it back; it may be called again. */
export class Place implements AsyncDisposable {
  /** Of its run folder and its control group. */
  readonly name: string;
  readonly slot: Slot;
  readonly keeper: Keeper;
  readonly jail: VmmKind | undefined;
  readonly #rest: AsyncDisposableStack;
  #isLost = false;

  constructor({ name, slot, keeper, jail, rest }: Parts) {
    this.name = name;
    this.slot = slot;
    this.keeper = keeper;
    this.jail = jail;
    this.#rest = rest;
    keeper.once('close', () => {
      this.#isLost = true;
    });
  }

  get isLost(): boolean {
    return this.#isLost;
  }

  /** It was made for nobody: from now on it is as the sandbox's may be. */
  async fit(host: Host, steps: Steps, verb: string, record: SandboxRecord): Promise<void> {
    const { name, slot } = this;
    const fitting = [
      steps.run(`${verb}:limit-cgroup`, () => host.cgroups.limit(name, limitsOf(record))),
      // Nothing else is said of its slot yet.
      ...(isOpen(record.egress)
        ? []
        : [steps.run(`${verb}:set-egress`, () => slot.setEgress(record.egress))]),
    ];
    for (const done of await Promise.allSettled(fitting)) if (done.status === 'rejected') throw done.reason;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#rest.disposeAsync();
  }
}

interface Wish {
  name: string;
  limits: Limits;
  egress: Egress;
  /** For VMs of the host's own VMM. */
  jailed?: boolean;
}

/** When it throws, nothing of the place is left. */
export async function makePlace(host: Host, steps: Steps, verb: string, wish: Wish): Promise<Place> {
  const { name, limits, egress, jailed = false } = wish;
  const run = runFolder(host.config.run, name);
  await using undo = new AsyncDisposableStack();
  const [taken, started] = await Promise.allSettled([
    takeSlot(host, steps, verb, egress),
    startKeeper(host, steps, verb, { name, run, limits }),
  ]);
  // Undone the other way round: the slot goes when nothing is in it any more.
  if (taken.status === 'fulfilled') undo.defer(() => taken.value.release());
  undo.defer(() => rm(run, { recursive: true, force: true }));
  undo.defer(() => host.cgroups.remove(name));
  if (started.status === 'fulfilled') undo.defer(() => endKeeper(started.value));
  if (taken.status === 'rejected') throw taken.reason;
  if (started.status === 'rejected') throw started.reason;
  const [slot, keeper] = [taken.value, started.value];
  let jail: VmmKind | undefined;
  const { vmm, boot } = host;
  if (jailed && vmm.prepare !== undefined) {
    const { uids } = slot;
    const { kernel, initramfs } = boot;
    await steps.run(`${verb}:build-jail`, () => vmm.prepare!(keeper, { uids, kernel, initramfs }));
    jail = vmm.info.vmm;
  }
  return new Place({ name, slot, keeper, jail, rest: undo.move() });
}

async function takeSlot(host: Host, steps: Steps, verb: string, egress: Egress): Promise<Slot> {
  const slot = await steps.run(`${verb}:take-slot`, () => takeAnySlot(host, verb));
  try {
    await steps.run(`${verb}:set-egress`, () => slot.setEgress(egress));
  } catch (error) {
    await slot.release();
    throw error;
  }
  return slot;
}

/** Whoever needs one gets the one that a place of another VMM has. */
async function takeAnySlot(host: Host, verb: string): Promise<Slot> {
  try {
    return await host.slots.take();
  } catch (error) {
    const isTaken = error instanceof ThawError && error.kind === 'exhausted';
    if (!isTaken || verb === VERB || !(await host.places.drop())) throw error;
    return await host.slots.take();
  }
}

/** In its control group. What is left of a failure is the caller's to remove. */
async function startKeeper(
  host: Host,
  steps: Steps,
  verb: string,
  { name, run, limits }: { name: string; run: string; limits: Limits },
): Promise<Keeper> {
  // Side by side with the keeper's start, which waits for it before it counts as started.
  const group = steps.run(`${verb}:make-cgroup`, () => host.cgroups.make(name, limits));
  const [made, started] = await Promise.allSettled([
    group,
    steps.run(`${verb}:start-keeper`, () =>
      host.keepers.start(run, async (pid) => {
        await group;
        await steps.run(`${verb}:enter-cgroup`, () => host.cgroups.enter(name, pid));
      }),
    ),
  ]);
  if (made.status === 'rejected') throw made.reason;
  if (started.status === 'rejected') throw started.reason;
  return started.value;
}

/** Those that wait. */
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

  counts(): { ready: number; making: number } {
    return { ready: this.#ready.length, making: this.#making === undefined ? 0 : 1 };
  }

  get names(): string[] {
    return [...this.#ready.map(({ name }) => name), ...(this.#making === undefined ? [] : [this.#making])];
  }

  /** One in which a VM of that VMM can start, if there is one; it is the caller's from now on. */
  take(vmm: VmmKind): Place | undefined {
    const at = this.#ready.findIndex(({ jail, isLost }) => !isLost && (jail === undefined || jail === vmm));
    if (at < 0) return undefined;
    this.refill();
    return this.#ready.splice(at, 1)[0];
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
    for (const place of this.#ready.filter(({ isLost }) => isLost)) {
      this.#ready.splice(this.#ready.indexOf(place), 1);
      await place[Symbol.asyncDispose]();
    }
    while (this.#ready.length < this.#size && !this.#isClosing) {
      if (isStarting(this.#host())) return BUSY_MS;
      this.#making = newSandboxId();
      try {
        this.#ready.push(await this.#make(this.#making));
      } finally {
        this.#making = undefined;
      }
    }
    return undefined;
  }

  async #make(name: string): Promise<Place> {
    const host = this.#host();
    const steps = newSteps(host);
    const wish = { name, limits: WAITING, egress: OPEN_EGRESS, jailed: true };
    const place = await makePlace(host, steps, VERB, wish);
    place.keeper.once('close', () => {
      if (this.#ready.includes(place)) this.refill();
    });
    return place;
  }
}

function isStarting(host: Host): boolean {
  return host.registry.all().some(({ state }) => state.status === 'pending' || state.status === 'resuming');
}
