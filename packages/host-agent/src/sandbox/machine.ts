import { readdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import type { BuildId, Machine as MachineFacts } from '@thaw/snapshot';
import type { Build, Image } from '../build/build.ts';
import { readBuild } from '../build/read.ts';
import type { Guest } from '../guest/guest.ts';
import type { Host } from '../host.ts';
import type { Keeper } from '../keeper/keeper.ts';
import { retire } from '../metrics/paging.ts';
import type { Slot } from '../network/pool.ts';
import type { Steps } from '../os/step.ts';
import type { BootFiles } from '../vmm/boot-files.ts';
import type { Chain, Layer, Tracker, Vm, VmmKind } from '../vmm/vmm.ts';
import { keepConsole } from './console.ts';
import { SandboxPaths } from './paths.ts';
import { type SandboxRecord, vmOf } from './record.ts';

const RECORD_MS = 1000;

interface Parts {
  host: Host;
  record: SandboxRecord;
  slot: Slot;
  keeper: Keeper;
  vm: Vm;
  guest: Guest;
  boot: BootFiles;
  base: BuildId;
  /** Memory's parent; null until the first seal after a boot. */
  memoryBase: BuildId | null;
  top: number;
  hold: Disposable;
  /** Whether a restarted host agent takes it over. */
  isKnown: boolean;
  /** Where the record of the pages needed first is kept besides with the next seal. */
  workset?: string | undefined;
}

export class Machine {
  readonly slot: Slot;
  readonly keeper: Keeper;
  readonly vm: Vm;
  readonly guest: Guest;
  readonly boot: BootFiles;
  /** The builds that disk and memory are laid over: the parents of the next seal. */
  base: BuildId;
  memoryBase: BuildId | null;
  readonly #host: Host;
  /** The VM's name. */
  readonly #id: string;
  readonly #paths: SandboxPaths;
  readonly #vcpus: number;
  readonly #memoryMb: number;
  #top: number;
  #hold: Disposable;
  #isKnown: boolean;
  #ended: Promise<void> | undefined;
  #recording: NodeJS.Timeout | undefined;
  readonly #workset: string | undefined;

  constructor(parts: Parts) {
    this.#host = parts.host;
    this.#id = vmOf(parts.record);
    this.#paths = new SandboxPaths(parts.host.config, parts.record.id, parts.record.vm);
    this.#vcpus = parts.record.vcpus;
    this.#memoryMb = parts.record.memoryMb;
    this.slot = parts.slot;
    this.keeper = parts.keeper;
    this.vm = parts.vm;
    this.guest = parts.guest;
    this.boot = parts.boot;
    this.base = parts.base;
    this.memoryBase = parts.memoryBase;
    this.#top = parts.top;
    this.#hold = parts.hold;
    this.#isKnown = parts.isKnown;
    this.#workset = parts.workset;
  }

  /** It is of use: from here on a restarted host agent takes it over. */
  async begin(): Promise<void> {
    this.#isKnown = true;
    await this.save();
    // What the VM needs after its first answer, or its first second, is no longer what its next start waits for.
    this.#recording = setTimeout(() => this.answered(), RECORD_MS);
    this.#recording.unref();
  }

  /** A call into the guest has ended. */
  answered(): void {
    if (this.#recording === undefined) return;
    clearTimeout(this.#recording);
    this.#recording = undefined;
    // Only a hint: whatever goes wrong, the next start is slower.
    this.#keepRecord().catch(() => {});
  }

  async #keepRecord(): Promise<void> {
    const { memory } = this.vm;
    if (this.#workset === undefined) return await memory.endWorkset();
    const { workset: file } = this.#paths;
    await rm(file, { force: true });
    try {
      if (await memory.writeWorkset(file)) await rename(file, this.#workset);
    } finally {
      await rm(file, { force: true });
    }
  }

  /** What a restarted host agent needs to take this VM over. `moving`: it is about to stand on another build. */
  async save(moving = false): Promise<void> {
    if (!this.#isKnown) return;
    const state: MachineState = {
      slot: this.slot.index,
      base: this.base,
      memoryBase: this.memoryBase,
      top: this.#top,
      vmm: this.vm.info.vmm,
      kernel: this.boot.kernelSha,
      initramfs: this.boot.initramfsSha,
      moving,
    };
    await writeFile(`${this.#paths.machine}.new`, JSON.stringify(state), { mode: 0o600 });
    await rename(`${this.#paths.machine}.new`, this.#paths.machine);
  }

  /** The stamps by which a host can tell whether it may restore what this VM's seal holds. */
  get facts(): MachineFacts {
    const { vmm, version, machine, cpuModel, accelerator, tscKhz } = this.vm.info;
    return {
      vmm,
      vmm_version: version,
      machine_type: machine,
      cpu_model: cpuModel,
      accelerator,
      tsc_khz: tscKhz,
      kernel: this.boot.kernelSha,
      guest_agent: this.boot.initramfsSha,
      preload: vmm === 'firecracker' ? null : this.#host.preloadSha,
      vcpus: this.#vcpus,
    };
  }

  /** The layer that the guest writes to now, and the next one. */
  get layer(): Layer {
    return this.#paths.top(String(this.#top));
  }

  get nextLayer(): Layer {
    return this.#paths.top(String(this.#top + 1));
  }

  /**
   * After a rotation that was sealed as `build`: the next seal is laid over it. `hold` keeps it. When this throws,
   * the VM stands on what it had taken over until then, and nothing is lost; `onStay` is called before its disk goes
   * back to what it stood on.
   */
  async rebase(
    steps: Steps,
    verb: string,
    build: Build,
    hold: Disposable,
    onStay: () => Promise<void>,
  ): Promise<void> {
    if (this.isEnding) {
      // What it held is given back: nobody would give this one back.
      hold[Symbol.dispose]();
      throw new ThawError('unavailable', 'the VM has ended');
    }
    const before = this.#hold;
    const both = new DisposableStack();
    both.use(before);
    both.use(hold);
    this.#hold = both;
    try {
      await steps.run(`${verb}:rebase-memory`, async () => {
        await this.save(true);
        await this.vm.memory.commit(chainOf(build.memory!));
      });
      this.memoryBase = build.id;
      await this.save();
      await steps.run(`${verb}:rebase-disk`, async () => {
        await this.save(true);
        await this.vm.disk.commit(chainOf(build.disk));
      });
      this.base = build.id;
      this.#top += 1;
      await steps.run(`${verb}:rebase-machine`, () => this.save());
    } catch (error) {
      // A VM that ends writes no more: the build is whole, and what to go back to.
      if (this.base !== build.id && !this.isEnding) {
        await onStay().catch(async (cause) => {
          // Better back to the build than a build that changes.
          await this.vm.kill();
          throw cause;
        });
      }
      await this.abort();
      await this.save();
      if (this.memoryBase !== build.id) {
        this.#hold = before;
        hold[Symbol.dispose]();
      }
      throw error;
    }
    both.move();
    this.#hold = hold;
    before[Symbol.dispose]();
    await this.#removeOtherLayers();
  }

  /** Another pager takes the place of one that died. Throws when the VM is lost with it. */
  async replacePager(): Promise<void> {
    await replacePager(this.#host, this.keeper, {
      pagerState: this.#paths.pagerState,
      memoryMb: this.#memoryMb,
      slot: this.slot,
      memoryBase: this.memoryBase,
      tracker: this.vm.memory.tracker,
    });
  }

  /** Takes a rotation back: the VM writes to its old layer again, and the next dump repeats this one's pages. */
  async abort(): Promise<void> {
    await this.vm.memory.abort();
    await this.vm.disk.abort();
    await this.#removeOtherLayers();
  }

  async #removeOtherLayers(): Promise<void> {
    const { data, zeros } = this.layer;
    for (const name of await readdir(this.#paths.disk)) {
      const file = path.join(this.#paths.disk, name);
      if (file !== data && file !== zeros) await rm(file, { force: true });
    }
  }

  /** Of a machine that did not begin: who started it ends the rest of it. */
  letGo(): void {
    this.#hold[Symbol.dispose]();
  }

  /** Ends the VM and gives everything back; a second call joins the first. */
  end(): Promise<void> {
    this.#ended ??= this.#end();
    return this.#ended;
  }

  get isEnding(): boolean {
    return this.#ended !== undefined;
  }

  /** What only the VM's processes know, before they end. */
  async #keepTraces(): Promise<void> {
    const { memory } = this.vm;
    await Promise.all([keepConsole(this.#paths, this.vm), retire({ memory, build: this.memoryBase })]);
  }

  /** Backwards, and to the end also when something in it fails. */
  async #end(): Promise<void> {
    clearTimeout(this.#recording);
    await using rest = new AsyncDisposableStack();
    rest.defer(() => this.slot.release());
    rest.defer(() => this.#hold[Symbol.dispose]());
    for (const folder of [this.#paths.disk, this.#paths.snapshot])
      rest.defer(() => rm(folder, { recursive: true, force: true }));
    rest.defer(() => rm(this.#paths.run, { recursive: true, force: true }));
    rest.defer(() => this.#host.cgroups.remove(this.#id));
    rest.defer(() => endKeeper(this.keeper));
    rest.defer(() => this.#keepTraces());
    this.guest.close();
  }
}

export interface Orphan {
  pagerState: string;
  memoryMb: number;
  slot: Slot;
  memoryBase: BuildId | null;
  tracker: 'auto' | Tracker;
}

/** Gives a VM whose pager died another one. */
export async function replacePager(host: Host, keeper: Keeper, orphan: Orphan): Promise<void> {
  const { pagerState, memoryMb, slot, memoryBase, tracker } = orphan;
  const parent = memoryBase === null ? null : (await readBuild(host.builds, memoryBase)).memory;
  const spec = { uids: slot.uids, memoryMb, tracker, pagerState };
  await host.vmm.replacePager(keeper, parent === null ? spec : { ...spec, memory: chainOf(parent) });
}

/** The content of `machine.json`. */
export interface MachineState {
  slot: number;
  base: BuildId;
  memoryBase: BuildId | null;
  top: number;
  vmm: VmmKind;
  kernel: string;
  initramfs: string;
  /** Whether the VM stands on these builds already, or still, nobody can tell. */
  moving: boolean;
}

export function chainOf(image: Image): Chain {
  return { header: image.headerFile, builds: Object.fromEntries(image.sources) };
}

/** Ends a keeper with all its processes. */
export async function endKeeper(keeper: Keeper): Promise<void> {
  await keeper.end().catch(() => {});
  keeper.close();
}
