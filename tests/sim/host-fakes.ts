/** One life of the host agent sees the room through these; each call waits at a gate of that life. */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import { Keeper, type KeeperStatus, type Keepers } from '../../packages/host-agent/src/keeper/keeper.ts';
import type { Slot, Slots } from '../../packages/host-agent/src/network/pool.ts';
import { FakeKit, type FakeVm } from '../../packages/host-agent/src/vmm/fake/kit.ts';
import type { BootSpec, RestoreSpec, Vm, VmmKit } from '../../packages/host-agent/src/vmm/vmm.ts';
import { GuestState, type KeeperProcess, type Room } from './room.ts';
import type { Gate } from './scheduler.ts';

export const SLOTS = 12;
const ROLES = ['vmm', 'pager', 'blockstore'];

/** A keeper without a process: the room has it. */
class RoomKeeper extends Keeper {
  readonly #room: Room;
  readonly #process: KeeperProcess;
  readonly #gate: Gate;
  readonly #listener = {
    onExit: (role: string) => void this.emit('exit', { role, code: null, signal: 9 }),
    onClose: () => this.close(),
  };

  constructor(room: Room, process: KeeperProcess, gate: Gate) {
    super(process.runDir);
    this.#room = room;
    this.#process = process;
    this.#gate = gate;
    process.listeners.add(this.#listener);
  }

  override async status(): Promise<KeeperStatus> {
    await this.#gate('keeper:status');
    this.#expect();
    const running = this.#process.vm !== undefined;
    const roles = ROLES.map((role) => [role, { pid: 1, start_time: 1, running, exit: null }] as const);
    return { pid: this.#process.pid, kept: [], roles: Object.fromEntries(roles) };
  }

  override async end(): Promise<void> {
    await this.#gate('keeper:end');
    this.#expect();
    this.#room.endKeeper(this.#process);
  }

  override async logs(): Promise<string> {
    return '';
  }

  override async signal(): Promise<void> {
    await this.#gate('keeper:signal');
    this.#process.endVm();
  }

  override close(): void {
    if (this.#process.listeners.delete(this.#listener)) this.emit('close');
  }

  #expect(): void {
    if (!this.#process.listeners.has(this.#listener))
      throw new ThawError('unavailable', 'the keeper hung up');
  }
}

export function roomKeepers(room: Room, gate: Gate): Keepers {
  return {
    async start(runDir, admit) {
      await gate('keeper:start');
      await mkdir(runDir, { recursive: true, mode: 0o700 });
      const process = room.startKeeper(runDir);
      try {
        await admit(process.pid);
      } catch (error) {
        room.endKeeper(process);
        throw error;
      }
      return new RoomKeeper(room, process, gate);
    },
    async connect(runDir) {
      await gate('keeper:connect');
      const process = room.keeper(runDir);
      if (process === undefined) throw Object.assign(new Error('no keeper'), { code: 'ENOENT' });
      return new RoomKeeper(room, process, gate);
    },
  };
}

export class RoomKit implements VmmKit {
  readonly #room: Room;
  readonly #gate: Gate;
  readonly #kit = new FakeKit();

  constructor(room: Room, gate: Gate) {
    this.#room = room;
    this.#gate = gate;
  }

  get info() {
    return this.#kit.info;
  }

  get backends() {
    return this.#kit.backends;
  }

  async boot(spec: BootSpec): Promise<Vm> {
    await this.#gate('vmm:boot');
    const vm = await this.#kit.boot(spec);
    return this.#run(spec, vm, await GuestState.booted(vm));
  }

  async restore(spec: RestoreSpec): Promise<Vm> {
    await this.#gate('vmm:restore');
    const vm = await this.#kit.restore(spec);
    const guest = await GuestState.restored(vm);
    const build = path.basename(path.dirname(spec.vmstate));
    const sealed = this.#room.sealed.get(build);
    this.#room.check(guest.content === sealed, `build ${build}: ${guest.content}, sealed with ${sealed}`);
    return this.#run(spec, vm, guest);
  }

  async replacePager(): Promise<void> {
    await this.#kit.replacePager();
  }

  async attach(keeper: Keeper): Promise<Vm> {
    await this.#gate('vmm:attach');
    const process = this.#room.keeper(keeper.runDir);
    if (process?.vm === undefined) throw new ThawError('unavailable', 'the VM has ended');
    return this.#handle(process, process.vm);
  }

  #run(spec: BootSpec | RestoreSpec, vm: FakeVm, guest: GuestState): Vm {
    const process = this.#room.keeper(spec.keeper.runDir);
    if (process === undefined) throw new ThawError('unavailable', 'the keeper hung up');
    this.#room.startVm(process, vm, guest, spec.netns);
    return this.#handle(process, vm);
  }

  /** The VM as this life of the host agent has it. */
  #handle(process: KeeperProcess, vm: FakeVm): Vm {
    const alive = () => {
      if (process.vm !== vm) throw new ThawError('internal', 'the VM failed', { cause: 'it is gone' });
    };
    const own = {
      stop: async () => {
        await vm.stop();
        process.stopped = true;
      },
      goOn: async () => {
        await vm.goOn();
        process.stopped = false;
        this.#room.changed();
      },
      save: async (file: string) => {
        const build = path.basename(path.dirname(file)).replace('.tmp-', '');
        this.#room.sealed.set(build, process.guest!.content);
        return await vm.save(file);
      },
      kill: async () => process.endVm(),
    };
    const memory = this.#gated('memory', vm.memory, alive);
    const disk = this.#gated('disk', vm.disk, alive);
    return this.#gated('vmm', vm, alive, { ...own, memory, disk });
  }

  /** Each method waits at the gate and then needs the VM to be there; `own` comes before what `target` has. */
  #gated<T extends object>(name: string, target: T, alive: () => void, own: object = {}): T {
    return new Proxy(target, {
      get: (_, key) => {
        const value = Reflect.has(own, key) ? Reflect.get(own, key) : Reflect.get(target, key, target);
        if (typeof value !== 'function') return value;
        return async (...args: unknown[]) => {
          await this.#gate(`${name}:${String(key)}`);
          if (key !== 'kill' && key !== 'console') alive();
          return value.apply(target, args);
        };
      },
    });
  }
}

/** Slots that are numbers: what exists of them is in the room. */
export class RoomSlots implements Slots, AsyncDisposable {
  readonly instance = 'sim';
  readonly #room: Room;
  readonly #gate: Gate;
  readonly #kept: Set<number>;
  readonly #taken = new Set<number>();

  /** What an earlier life left and no sandbox has goes. */
  constructor(room: Room, keep: readonly number[], gate: Gate) {
    this.#room = room;
    this.#gate = gate;
    this.#kept = new Set(keep);
    for (const index of room.slots) if (!this.#kept.has(index)) this.#remove(index);
  }

  counts() {
    const taken = this.#taken.size + this.#kept.size;
    return { warm: 0, taken, free: SLOTS - taken, aside: 0 };
  }

  async take(): Promise<Slot> {
    await this.#gate('slot:take');
    for (let index = 1; index <= SLOTS; index++) {
      if (this.#room.slots.has(index)) continue;
      this.#room.slots.add(index);
      return this.#hand(index);
    }
    throw new ThawError('exhausted', 'every network slot of this host is in use');
  }

  adopt(index: number): Slot {
    if (!this.#kept.delete(index)) throw new ThawError('internal', `slot ${index} was not kept`);
    return this.#hand(index);
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #hand(index: number): Slot {
    this.#taken.add(index);
    let released: Promise<void> | undefined;
    const release = async () => {
      await this.#gate('slot:release').catch(() => {});
      this.#taken.delete(index);
      this.#remove(index);
    };
    return {
      index,
      netnsPath: `slot ${index}`,
      hostAddress: `slot ${index}`,
      tap: 'tap0',
      uids: { vmm: index, pager: index, blockstore: index },
      setEgress: () => this.#gate('slot:set-egress'),
      openEgress: async () => {
        await this.#gate('slot:open-egress');
        if (released !== undefined) throw new ThawError('internal', 'the network slot was released');
        this.#room.egress.add(index);
      },
      release: () => {
        released ??= release();
        return released;
      },
    };
  }

  #remove(index: number): void {
    const used = this.#room.keepers.some(({ vm, netns }) => vm !== undefined && netns === `slot ${index}`);
    this.#room.check(!used, `slot ${index} is released under a VM`);
    this.#room.slots.delete(index);
    this.#room.egress.delete(index);
  }
}
