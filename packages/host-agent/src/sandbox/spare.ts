/**
 * VMs that were restored, have rehearsed and then been stopped, before anybody asked for them: a create gives one its
 * identity and lets it go on.
 *
 *   wished for ─► started ─► rehearsed ─► stopped: ready ─► taken by a create
 *                    └── given up: no room ──┴── lost, of a build that nobody wants any more, or dropped to make room
 *
 * They end with the host agent.
 */
import { rename, rm } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { newSandboxId, ThawError } from '@thaw/api';
import type { BuildId } from '@thaw/snapshot';
import type { Build } from '../build/build.ts';
import type { SpareWish } from '../config.ts';
import { type Host, newSteps } from '../host.ts';
import type { Steps } from '../os/step.ts';
import type { BootOrigin } from './boot.ts';
import type { Machine } from './machine.ts';
import { originOf, wanted } from './origin.ts';
import { SandboxPaths, sparePaths } from './paths.ts';
import type { SandboxRecord } from './record.ts';
import { Refill } from './refill.ts';
import { checkRoomBeside } from './room.ts';
import { identify, type Nameless, startMachine, startNameless } from './start.ts';

const REHEARSAL_TIMEOUT_MS = 10_000;
/** After a failure, or after they had to make room. */
const RETRY_MS = 60_000;
/** Whoever has just been given one works with it first. */
const REFILL_MS = 1000;

/** One that is ready. Disposing ends it. */
export class Spare implements AsyncDisposable {
  readonly build: Build;
  readonly #host: Host;
  readonly #record: SandboxRecord;
  readonly #nameless: Nameless;
  readonly #hold: Disposable;
  #isTaken = false;

  constructor(
    host: Host,
    record: SandboxRecord,
    nameless: Nameless,
    { build, hold }: Pick<BootOrigin, 'build' | 'hold'>,
  ) {
    this.#host = host;
    this.#record = record;
    this.#nameless = nameless;
    this.build = build;
    this.#hold = hold;
  }

  get id(): string {
    return this.#record.id;
  }

  get memoryMb(): number {
    return this.#record.memoryMb;
  }

  get isLost(): boolean {
    return this.#nameless.lost.aborted;
  }

  /** Its VM becomes the sandbox of `record`, or is ended. */
  async become(steps: Steps, record: SandboxRecord): Promise<Machine> {
    this.#isTaken = true;
    const { config } = this.#host;
    const [from, to] = [sparePaths(config, this.id), new SandboxPaths(config, record.id, record.vm)];
    try {
      await steps.run('create:take-spare', async () => {
        await rename(from.disk, to.disk);
        await rename(from.snapshot, to.snapshot).catch((error) => {
          if (error.code !== 'ENOENT') throw error;
        });
        await rm(from.data, { recursive: true, force: true });
      });
      if (!isDeepStrictEqual(record.egress, this.#record.egress))
        await steps.run('create:set-egress', () => this.#nameless.slot.setEgress(record.egress));
      await steps.run('create:go-on', () => this.#nameless.vm.goOn());
    } catch (error) {
      await this.#end();
      throw error;
    }
    const { build } = this;
    return await identify(this.#host, steps, 'create', record, this.#nameless, { build, hold: this.#hold });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isTaken) return;
    this.#isTaken = true;
    await this.#end();
  }

  async #end(): Promise<void> {
    try {
      await this.#nameless[Symbol.asyncDispose]();
      await rm(sparePaths(this.#host.config, this.id).data, { recursive: true, force: true });
    } finally {
      this.#hold[Symbol.dispose]();
    }
  }
}

export class Spares implements AsyncDisposable {
  readonly #host: () => Host;
  readonly #wishes: readonly SpareWish[];
  readonly #ready = new Map<SpareWish, Spare[]>();
  #making: { record: SandboxRecord } | undefined;
  readonly #refill: Refill;

  constructor(host: () => Host, wishes: readonly SpareWish[]) {
    this.#host = host;
    this.#wishes = wishes.filter(({ count }) => count > 0);
    for (const wish of this.#wishes) this.#ready.set(wish, []);
    this.#refill = new Refill({
      fill: () => this.#fill(),
      failed: (error) => host().log.warn({ err: error }, 'a spare could not be made'),
      retryMs: RETRY_MS,
    });
  }

  counts(): { ready: number; making: number } {
    return { ready: this.#all().length, making: this.#making === undefined ? 0 : 1 };
  }

  /** The names of their VMs. */
  get ids(): string[] {
    return [...this.#all(), ...(this.#making ? [this.#making.record] : [])].map(({ id }) => id);
  }

  /** What their guests may use together, one that is being made included. */
  get memoryMb(): number {
    const making = this.#making?.record.memoryMb ?? 0;
    return this.#all().reduce((sum, { memoryMb }) => sum + memoryMb, making);
  }

  /** One that has started from that build, if there is one; it is the caller's from now on. */
  take(build: BuildId): Spare | undefined {
    for (const spares of this.#ready.values()) {
      const at = spares.findIndex((spare) => spare.build.id === build && !spare.isLost);
      if (at >= 0) return spares.splice(at, 1)[0];
    }
    return undefined;
  }

  /** Ends all that are ready, to make room. False if there was none. */
  async drop(): Promise<boolean> {
    const dropped = this.#all();
    for (const spares of this.#ready.values()) spares.length = 0;
    await Promise.all(dropped.map((spare) => spare[Symbol.asyncDispose]()));
    if (dropped.length > 0) this.refill(RETRY_MS);
    return dropped.length > 0;
  }

  /** Makes what is missing, in the background and one by one. */
  refill(afterMs = REFILL_MS): void {
    if (this.#wishes.length === 0) return;
    this.#refill.after(afterMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#refill[Symbol.asyncDispose]();
    await this.drop();
  }

  #all(): Spare[] {
    return [...this.#ready.values()].flat();
  }

  /** Milliseconds until it is to be tried again, if it is. */
  async #fill(): Promise<number | undefined> {
    for (const [wish, spares] of this.#ready) {
      for (let made = 0; made < 2 * wish.count && !this.#refill.isClosing; made++) {
        for (const lost of spares.filter(({ isLost }) => isLost)) await this.#discard(spares, lost);
        if (spares.length >= wish.count) break;
        const spare = await this.#make(wish);
        // One of a build that was replaced meanwhile is of no use.
        for (const old of spares.filter(({ build }) => build.id !== spare.build.id))
          await this.#discard(spares, old);
        spares.push(spare);
      }
    }
    return undefined;
  }

  async #discard(spares: Spare[], spare: Spare): Promise<void> {
    spares.splice(spares.indexOf(spare), 1);
    await spare[Symbol.asyncDispose]();
  }

  async #make({ template, vcpus, memoryMb, diskMb }: SpareWish): Promise<Spare> {
    const host = this.#host();
    const wish = { sandboxId: newSandboxId(), template, vcpus, memoryMb, diskMb, timeoutSec: 0, env: {} };
    try {
      const { record, origin } = await this.#origin(host, wish);
      using held = new DisposableStack();
      held.use(origin.hold);
      const steps = newSteps(host);
      const nameless = await startNameless(host, steps, 'spare', {
        record,
        paths: sparePaths(host.config, record.id),
        build: origin.build,
      });
      await using undo = new AsyncDisposableStack();
      undo.use(nameless);
      const { slot, lost, vm } = nameless;
      await steps.run('spare:rehearse', () =>
        host.guests.rehearse(slot.hostAddress, REHEARSAL_TIMEOUT_MS, lost),
      );
      await steps.run('spare:stop', () => vm.stop());
      const spare = new Spare(host, record, nameless, origin);
      undo.move();
      held.move();
      return spare;
    } finally {
      this.#making = undefined;
    }
  }

  /** What it starts from; a base template that has not booted in this size does so first. */
  async #origin(host: Host, wish: Parameters<typeof wanted>[1]) {
    for (let tries = 0; ; tries++) {
      const found = await wanted(host, wish);
      const { record } = found;
      using held = new DisposableStack();
      held.use(found.template.hold);
      this.#making = { record };
      await checkRoomBeside(host, 0);
      held.move();
      const origin = await originOf(host, found);
      if (origin.keep === undefined) return { record, origin };
      if (tries > 0) {
        origin.hold[Symbol.dispose]();
        throw new ThawError('internal', 'the boot was not kept');
      }
      await bootAhead(host, newSteps(host), record, origin);
    }
  }
}

async function bootAhead(host: Host, steps: Steps, record: SandboxRecord, origin: BootOrigin): Promise<void> {
  const machine = await startMachine(host, steps, 'spare', record, origin);
  await machine.end();
  await rm(new SandboxPaths(host.config, record.id).data, { recursive: true, force: true });
}
