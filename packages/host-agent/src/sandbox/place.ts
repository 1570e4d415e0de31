/**
 * Where a VM runs: a network slot, a control group and a keeper in it, with its jail and the processes that serve a VM as far as
 * they depend on no sandbox; a VMM waits there too, of the size that most sandboxes have. A start only says what it may use and
 * reach, and what is to be restored.
 */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import type { BuildId } from '@thaw/snapshot';
import type { Host } from '../host.ts';
import type { Keeper } from '../keeper/keeper.ts';
import { type Egress, isOpen } from '../network/egress.ts';
import type { Slot } from '../network/pool.ts';
import { type Limits, limitsOf } from '../os/cgroup/limits.ts';
import type { Steps } from '../os/step.ts';
import type { Chain, VmmKind } from '../vmm/vmm.ts';
import { endKeeper } from './machine.ts';
import { runFolder } from './paths.ts';
import type { SandboxRecord } from './record.ts';

/** What a VMM waits for that was started ahead. */
export interface Wait {
  vcpus: number;
  memoryMb: number;
  diskMb: number;
  /** Whose memory is mapped; else it comes through the pager. */
  build?: BuildId;
}

/** Of making one ahead: whoever needs a slot may have its. */
export const AHEAD = 'place';
const END_TIMEOUT_MS = 5000;
const MIB = 2 ** 20;

interface Parts {
  name: string;
  slot: Slot;
  keeper: Keeper;
  /** Whose VM all is prepared for; nothing is if nobody's. */
  vmm: VmmKind | undefined;
  rest: AsyncDisposableStack;
}

/** Disposing ends everything in it and gives it back; it may be called again. */
export class Place implements AsyncDisposable {
  /** Of its run folder and its control group. */
  readonly name: string;
  readonly slot: Slot;
  readonly keeper: Keeper;
  readonly vmm: VmmKind | undefined;
  readonly #rest: AsyncDisposableStack;
  #waiting: Wait | undefined;
  #fitted: Promise<void> | undefined;
  #isLost = false;

  constructor({ name, slot, keeper, vmm, rest }: Parts) {
    this.name = name;
    this.slot = slot;
    this.keeper = keeper;
    this.vmm = vmm;
    this.#rest = rest;
    keeper.once('close', () => {
      this.#isLost = true;
    });
    keeper.on('exit', ({ role }) => {
      if (role !== 'vmm' || this.#waiting !== undefined) this.#isLost = true;
    });
  }

  /** Of the VMM that waits in it. */
  get waiting(): Wait | undefined {
    return this.#waiting;
  }

  /** Has a VMM wait for that, or none, instead of what there is. When it throws, the place is of no use. */
  async expect(host: Host, steps: Steps, verb: string, next?: { wait: Wait; memory?: Chain }): Promise<void> {
    const { keeper, slot } = this;
    if (this.#waiting !== undefined) {
      this.#waiting = undefined;
      await steps.run(`${verb}:end-ahead`, async () => {
        // The event too: whoever starts the next one must not take it for that one's.
        const gone = keeper.gone('vmm');
        await keeper.signal('vmm', 'KILL');
        await Promise.all([gone, keeper.wait('vmm', END_TIMEOUT_MS)]);
        await rm(path.join(keeper.runDir, 'vmm', 'qmp.sock'), { force: true });
      });
    }
    const { vmm, config } = host;
    if (next === undefined || vmm.startAhead === undefined || this.vmm !== vmm.info.vmm) return;
    const { uids, netnsPath: netns, tap: tapName } = slot;
    const { vcpus, memoryMb, diskMb } = next.wait;
    const { memory } = next;
    const diskBytes = diskMb * MIB;
    const spec = { uids, netns, tapName, vcpus, memoryMb, memory, diskBytes, tracker: config.tracker };
    // Before it runs: one that ends at once is missed by nobody.
    this.#waiting = next.wait;
    await steps.run(`${verb}:start-ahead`, () => vmm.startAhead!(keeper, spec));
  }

  get isLost(): boolean {
    return this.#isLost;
  }

  /** It was made for nobody: from now on it is as the sandbox's may be. A second call joins the first. */
  fit(host: Host, steps: Steps, verb: string, record: SandboxRecord): Promise<void> {
    this.#fitted ??= this.#fit(host, steps, verb, record);
    return this.#fitted;
  }

  async #fit(host: Host, steps: Steps, verb: string, record: SandboxRecord): Promise<void> {
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
  prepared?: boolean;
}

/** When it throws, nothing of the place is left. */
export async function makePlace(host: Host, steps: Steps, verb: string, wish: Wish): Promise<Place> {
  const { name, limits, egress, prepared = false } = wish;
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
  let vmm: VmmKind | undefined;
  const { vmm: kit, boot } = host;
  if (prepared && kit.prepare !== undefined) {
    const { uids } = slot;
    const { kernel, initramfs } = boot;
    await steps.run(`${verb}:prepare-place`, () => kit.prepare!(keeper, { uids, kernel, initramfs }));
    vmm = kit.info.vmm;
  }
  return new Place({ name, slot, keeper, vmm, rest: undo.move() });
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
    if (!isTaken || verb === AHEAD || !(await host.places.drop())) throw error;
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
