/**
 * What of a host outlives its host agent: keepers with their VMs, and slots. It watches that a sandbox never has two
 * VMs and that a VM starts with exactly what its build was sealed with.
 */
import path from 'node:path';
import type { FakeVm } from '../../packages/host-agent/src/vmm/fake/kit.ts';

const IDENTITY_AT = 0x1000;
const CONTENT_AT = 0x2000;
const BLOCK = 4096;

export interface GuestIdentity {
  counter: number;
  sandboxId: string;
  accessToken: string;
}

/** What runs in a VM: an agent with an identity, and one program that writes the same number to memory and disk. */
export class GuestState {
  readonly vm: FakeVm;
  identity: GuestIdentity | undefined;
  frozen = false;
  /** The last number written; 0 at first. */
  content = 0;

  constructor(vm: FakeVm) {
    this.vm = vm;
  }

  /** As memory and disk have it. Throws when they are not of one instant. */
  static async restored(vm: FakeVm): Promise<GuestState> {
    const state = new GuestState(vm);
    const [identity, memory, disk] = await Promise.all([
      readBlock<Partial<GuestIdentity> & { frozen: boolean }>(vm.memory.pages.read(IDENTITY_AT)),
      readBlock<number>(vm.memory.pages.read(CONTENT_AT)),
      readBlock<number>(vm.disk.read(CONTENT_AT)),
    ]);
    if (memory !== disk) throw new Error(`memory has ${memory}, disk ${disk}`);
    // A boot that was kept is nobody yet.
    state.identity = identity?.counter === undefined ? undefined : (identity as GuestIdentity);
    state.frozen = identity?.frozen ?? false;
    state.content = memory ?? 0;
    return state;
  }

  /** A cold boot finds what the disk has. */
  static async booted(vm: FakeVm): Promise<GuestState> {
    const state = new GuestState(vm);
    const disk = await readBlock<number>(vm.disk.read(CONTENT_AT));
    if (disk !== undefined) state.write(disk);
    return state;
  }

  write(content: number): void {
    this.content = content;
    this.vm.memory.write(CONTENT_AT, block(content));
    this.vm.disk.write(CONTENT_AT, block(content));
  }

  become(identity: GuestIdentity | undefined, frozen: boolean): void {
    this.identity = identity;
    this.frozen = frozen;
    this.vm.memory.write(IDENTITY_AT, block({ ...identity, frozen }));
  }
}

function block(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value).padEnd(BLOCK));
}

async function readBlock<T>(bytes: Promise<Buffer>): Promise<T | undefined> {
  const text = (await bytes).toString('utf8').replaceAll('\0', '').trim();
  return text === '' ? undefined : (JSON.parse(text) as T);
}

interface Listener {
  onExit(role: string): void;
  onClose(): void;
}

/** A keeper and its children. */
export class KeeperProcess {
  readonly runDir: string;
  readonly pid: number;
  readonly listeners = new Set<Listener>();
  vm: FakeVm | undefined;
  guest: GuestState | undefined;
  netns = '';
  stopped = false;

  constructor(runDir: string, pid: number) {
    this.runDir = runDir;
    this.pid = pid;
  }

  get sandboxId(): string {
    return path.basename(this.runDir);
  }

  /** The VMM ends by itself, or somebody kills it. */
  endVm(): void {
    if (this.vm === undefined) return;
    this.vm.exit({ code: null, signal: 9 });
    this.vm = undefined;
    this.guest = undefined;
    for (const listener of [...this.listeners]) listener.onExit('vmm');
  }
}

export class Room {
  readonly violations: string[] = [];
  /** What was in a VM when the build of this id took its state. */
  readonly sealed = new Map<string, number>();
  /** Slots that exist on the host, and those whose guests reach the internet. */
  readonly slots = new Set<number>();
  readonly egress = new Set<number>();
  readonly #keepers = new Map<string, KeeperProcess>();
  #lastPid = 1000;
  #waiters: (() => void)[] = [];

  get keepers(): KeeperProcess[] {
    return [...this.#keepers.values()];
  }

  keeper(runDir: string): KeeperProcess | undefined {
    return this.#keepers.get(runDir);
  }

  /** Throws when another one holds the folder, as a real keeper does. */
  startKeeper(runDir: string): KeeperProcess {
    if (this.#keepers.has(runDir)) throw new Error(`a keeper holds ${runDir}`);
    const keeper = new KeeperProcess(runDir, ++this.#lastPid);
    this.#keepers.set(runDir, keeper);
    return keeper;
  }

  endKeeper(keeper: KeeperProcess): void {
    if (this.#keepers.get(keeper.runDir) !== keeper) return;
    keeper.endVm();
    this.#keepers.delete(keeper.runDir);
    for (const listener of [...keeper.listeners]) listener.onClose();
    this.changed();
  }

  startVm(keeper: KeeperProcess, vm: FakeVm, guest: GuestState, netns: string): void {
    const beside = this.keepers.filter((one) => one.vm !== undefined && one.sandboxId === keeper.sandboxId);
    this.check(beside.length === 0, `${keeper.sandboxId} has two VMs`);
    const shared = this.keepers.some((one) => one.vm !== undefined && one.netns === netns);
    this.check(!shared, `two VMs share ${netns}`);
    Object.assign(keeper, { vm, guest, netns, stopped: false });
  }

  check(holds: boolean, otherwise: string): void {
    if (!holds) this.violations.push(otherwise);
  }

  /** Tells those who wait for something in this room. */
  changed(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  /** Resolves at the next change. */
  change(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }
}
