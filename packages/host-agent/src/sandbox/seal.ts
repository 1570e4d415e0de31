/**
 * Freezes a running VM into a build: memory, disk and device state of one instant.
 *
 *   pre-dump ─► prepare ─► flush ─► stop ─► device state ‖ dirty memory ‖ disk rotation ─► (go on)
 *                                    └────────────── frozen ──────────────┘
 *   ─► headers, checksums, fsync ─► rename ─► head: sealed
 *
 * A step that fails before the head is renamed leaves the VM running as before, and what it had dumped is part of
 * the next seal.
 */
import { rm } from 'node:fs/promises';
import type { Layout } from '@thaw/snapshot';
import type { OpenBuild } from '../build/begin.ts';
import { beginBuild } from '../build/begin.ts';
import type { Build } from '../build/build.ts';
import { commitHead, type Facts, type Head, readHead } from '../build/head.ts';
import type { HeadOwner } from '../build/paths.ts';
import { sealBuild } from '../build/seal.ts';
import type { Guests } from '../guest/control.ts';
import type { Host } from '../host.ts';
import { observeSeal } from '../metrics/metrics.ts';
import type { Steps } from '../os/step.ts';
import type { Disk } from '../vmm/vmm.ts';
import type { Machine } from './machine.ts';
import { pausedFacts, type SandboxRecord } from './record.ts';

const PREPARE_TIMEOUT_MS = 500;
/** To write all that the guest has in memory of its disk: nothing else remembers it. */
const SYNC_TIMEOUT_MS = 20_000;
/** As long as a guest may take to answer at all. */
const THAW_TIMEOUT_MS = 30_000;
const MIB = 2 ** 20;

export interface SealOptions {
  verb: 'pause' | 'snapshot' | 'boot';
  /** The VM runs on once its state is taken. */
  goOn: boolean;
  /** Leaves out memory and device state, unless the guest can't write down what it has there of its disk. */
  diskOnly?: boolean;
  onThawed?: () => void;
  /** Points this at the build, and not the sandbox. */
  head?: { owner: HeadOwner; facts: Facts };
}

export interface Sealed {
  build: Build;
  /** The head before. */
  before: Head | undefined;
}

/** Seals and points a head at the build, the sandbox's unless another is given. Throws with the VM running and nothing changed. */
export async function seal(
  host: Host,
  steps: Steps,
  record: SandboxRecord,
  machine: Machine,
  { verb, goOn, diskOnly = false, onThawed, head }: SealOptions,
): Promise<Sealed> {
  await using open = await beginBuild(host.builds, steps, verb);
  const frozen = new Frozen(machine, host.guests, onThawed);
  const owner = head?.owner ?? ({ kind: 'sandbox', id: record.id } as const);
  let build: Build | undefined;
  try {
    if (!diskOnly) {
      await steps.run(`${verb}:record-workset`, () => recordWorkset(machine, open));
      await steps.run(`${verb}:pre-dump`, () => machine.vm.memory.preDump(open.files.memfile));
    }
    const prepared = await steps.run(`${verb}:prepare`, () =>
      host.guests.prepare(machine.slot.hostAddress, diskOnly ? SYNC_TIMEOUT_MS : PREPARE_TIMEOUT_MS),
    );
    if (prepared !== 'frozen')
      host.log.warn({ sandbox: record.id, prepared }, 'the guest did not freeze its processes in time');
    const layout =
      diskOnly && prepared !== 'silent'
        ? await freezeDisk(steps, verb, machine, open, frozen)
        : await freeze(steps, verb, machine, open, frozen);
    if (goOn) await steps.run(`${verb}:go-on`, () => frozen.thaw());
    await steps.run(`${verb}:flush-layer`, () => machine.vm.disk.flush());
    build = await sealBuild(host.builds, steps, verb, open, {
      ...(layout !== undefined && {
        memory: {
          sizeBytes: record.memoryMb * MIB,
          parent: machine.memoryBase,
          machine: machine.facts,
          layout,
        },
      }),
      disk: { sizeBytes: record.diskMb * MIB, parent: machine.base, layer: machine.layer.data },
      template: record.template,
      guestUnresponsive: prepared !== 'frozen',
    });
    const facts = head?.facts ?? (goOn ? {} : pausedFacts(record));
    const before = await commitHead(host.builds, steps, verb, owner, { build: build.id, facts });
    return { build, before };
  } catch (error) {
    if (build !== undefined && (await mayName(host, owner, build))) await machine.vm.kill().catch(() => {});
    else {
      // The guest goes on writing: on a full disk it needs the room that this has taken.
      await rm(open.files.memfile, { force: true }).catch(() => {});
      await frozen.undo();
    }
    throw error;
  }
}

/**
 * Whether the head names the build though its commit failed, as far as one can tell. Its disk is the layer that the VM
 * would go back to: better back to the build than a build that changes.
 */
async function mayName(host: Host, owner: HeadOwner, { id }: Build): Promise<boolean> {
  return await readHead(host.builds, owner).then(
    (head) => head?.build === id,
    () => true,
  );
}

/** What this run needed first, the next one will need first. A VM that was booted has nothing to tell. */
async function recordWorkset(machine: Machine, { files }: OpenBuild): Promise<void> {
  if (!(await machine.vm.memory.writeWorkset(files.workset))) await rm(files.workset);
}

async function freeze(
  steps: Steps,
  verb: string,
  machine: Machine,
  open: OpenBuild,
  frozen: Frozen,
): Promise<Layout> {
  const { vm } = machine;
  await steps.run(`${verb}:flush`, () => vm.disk.flush());
  const started = performance.now();
  await steps.run(`${verb}:stop`, () => frozen.stop());
  const [saved, dumped, rotated] = await Promise.allSettled([
    steps.run(`${verb}:save`, () => vm.save(open.files.vmstate)),
    steps.run(`${verb}:dump`, () =>
      vm.memory.dump({ memfile: open.files.memfile, runs: open.files.memfileRuns }),
    ),
    steps.run(`${verb}:rotate`, () => frozen.rotate(open.files.rootfsRuns)),
  ]);
  steps.note('frozen', performance.now() - started);
  if (saved.status === 'rejected') throw saved.reason;
  if (dumped.status === 'rejected') throw dumped.reason;
  if (rotated.status === 'rejected') throw rotated.reason;
  observeSeal(dumped.value, rotated.value);
  return dumped.value.layout;
}

/** What the guest has not written by now is in memory alone, and goes with it. */
async function freezeDisk(
  steps: Steps,
  verb: string,
  machine: Machine,
  open: OpenBuild,
  frozen: Frozen,
): Promise<undefined> {
  await steps.run(`${verb}:stop`, () => frozen.stop());
  await steps.run(`${verb}:flush`, () => machine.vm.disk.flush());
  await steps.run(`${verb}:rotate`, () => frozen.rotate(open.files.rootfsRuns));
}

/** What has been done to a VM on the way to a seal, and the way back. */
class Frozen {
  readonly #machine: Machine;
  readonly #guests: Guests;
  readonly #onThawed: (() => void) | undefined;
  #stopped = false;
  #prepared = true;

  constructor(machine: Machine, guests: Guests, onThawed: (() => void) | undefined) {
    this.#machine = machine;
    this.#guests = guests;
    this.#onThawed = onThawed;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#machine.vm.stop();
  }

  rotate(runs: string): ReturnType<Disk['rotate']> {
    return this.#machine.vm.disk.rotate(this.#machine.nextLayer, runs);
  }

  /** The VM runs on with the right time. */
  async thaw(): Promise<void> {
    if (this.#stopped) await this.#machine.vm.goOn();
    this.#stopped = false;
    if (this.#prepared) await this.#guests.thaw(this.#machine.slot.hostAddress, THAW_TIMEOUT_MS);
    this.#prepared = false;
    this.#onThawed?.();
  }

  /** The VM runs on as if nothing had been asked. A VM that can't is lost: ended, and the sandbox becomes `error`. */
  async undo(): Promise<void> {
    try {
      await this.#machine.abort();
      await this.thaw();
    } catch {
      await this.#machine.vm.kill().catch(() => {});
    }
  }
}
