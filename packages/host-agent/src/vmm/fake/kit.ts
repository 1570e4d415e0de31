/**
 * A VMM without a machine, for tests of the verbs: real files, real dirty sets, a guest that only writes blocks.
 * `fault` is called with the label of every operation (`vmm:save`, `memory:dump`, `disk:rotate`, …) and may throw.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import type { Exit } from '../../keeper/keeper.ts';
import type { Fault } from '../../os/step.ts';
import type { BootSpec, RestoreSpec, Saved, Vm, VmmInfo, VmmKit } from '../vmm.ts';
import { FakeDisk } from './disk.ts';
import { FakeMemory } from './memory.ts';
import { Pages } from './pages.ts';

const INFO: VmmInfo = {
  vmm: 'fake',
  version: '1.0',
  machine: 'none',
  cpuModel: 'none',
  accelerator: 'none',
  isolation: 'emulated',
  tscKhz: 1,
};
const MAGIC = 'fake device state';

export class FakeKit implements VmmKit {
  readonly info = INFO;
  readonly backends = ['uffd', 'mapped'] as const;
  readonly #fault: Fault;

  constructor(fault: Fault = () => {}) {
    this.#fault = fault;
  }

  async boot(spec: BootSpec): Promise<FakeVm> {
    await this.#fault('vmm:boot');
    return this.#start(spec);
  }

  async restore(spec: RestoreSpec): Promise<FakeVm> {
    await this.#fault('vmm:restore');
    const state = await readFile(spec.vmstate, 'utf8').catch((cause: unknown) => {
      throw new ThawError('internal', 'the VM did not start', { cause });
    });
    if (state !== MAGIC) throw new ThawError('internal', 'the VM did not start', { cause: 'device state' });
    return this.#start(spec);
  }

  /** A fake lives in this process, so none is left of an earlier one. */
  async attach(): Promise<FakeVm> {
    throw new ThawError('unavailable', 'the VM has ended');
  }

  /** The pager of a fake does not die. */
  async replacePager(): Promise<void> {
    throw new ThawError('unavailable', 'a fake has no pager');
  }

  async #start(spec: BootSpec | RestoreSpec): Promise<FakeVm> {
    const chain = spec.kind === 'restore' ? spec.memory : undefined;
    const pages = await Pages.open(spec.memoryMb * 2 ** 20, chain);
    const disk = await FakeDisk.start(spec.disk, this.#fault);
    const backend = spec.kind === 'restore' ? spec.backend : 'uffd';
    return new FakeVm(new FakeMemory(pages, backend, this.#fault), disk, this.#fault);
  }
}

type State = 'running' | 'stopped' | 'gone';

export class FakeVm implements Vm {
  readonly info = INFO;
  readonly memory: FakeMemory;
  readonly disk: FakeDisk;
  readonly gone: Promise<Exit>;
  readonly pid = process.pid;
  readonly #fault: Fault;
  #state: State = 'running';
  #leave: (exit: Exit) => void = () => {};

  constructor(memory: FakeMemory, disk: FakeDisk, fault: Fault) {
    this.memory = memory;
    this.disk = disk;
    this.#fault = fault;
    this.gone = new Promise((resolve) => {
      this.#leave = resolve;
    });
  }

  async stop(): Promise<void> {
    await this.#fault('vmm:stop');
    this.#expect('running', 'stopped');
    this.#state = 'stopped';
  }

  async save(file: string): Promise<Saved> {
    await this.#fault('vmm:save');
    this.#expect('stopped');
    await writeFile(file, MAGIC, { flag: 'wx' });
    return { vmstateBytes: MAGIC.length, ms: 0 };
  }

  async goOn(): Promise<void> {
    await this.#fault('vmm:go-on');
    this.#expect('running', 'stopped');
    this.#state = 'running';
  }

  async kill(): Promise<void> {
    this.exit({ code: null, signal: 9 });
  }

  /** The VMM ends by itself. */
  exit(exit: Exit): void {
    this.#state = 'gone';
    this.#leave(exit);
  }

  async console(): Promise<string> {
    return '';
  }

  #expect(...states: State[]): void {
    if (!states.includes(this.#state)) {
      throw new ThawError('internal', 'the VM failed', { cause: `it is ${this.#state}` });
    }
  }
}
