/** A running Firecracker, driven through its API. */
import type { Exit, Keeper } from '../../keeper/keeper.ts';
import type { FirecrackerApi } from '../firecracker-api/api.ts';
import type { Pager } from '../memory.ts';
import type { Disk, Saved, Vm, VmmInfo } from '../vmm.ts';
import { createCall, stateCall } from './config.ts';
import { FirecrackerMemory } from './memory.ts';
import type { SnapshotFiles } from './snapshot.ts';

interface Parts {
  keeper: Keeper;
  api: FirecrackerApi;
  pager: Pager;
  disk: Disk;
  files: SnapshotFiles;
  info: VmmInfo;
  pid: number;
  gone: Promise<Exit>;
  /** The memory file holds what an earlier host agent had written and not committed. */
  kept: boolean;
}

/** Up to all of the guest's memory, synced. */
const CREATE_TIMEOUT_MS = 120_000;
const KILL_TIMEOUT_MS = 10_000;

export class FirecrackerVm implements Vm {
  readonly info: VmmInfo;
  readonly memory: FirecrackerMemory;
  readonly disk: Disk;
  readonly pid: number;
  readonly gone: Promise<Exit>;
  readonly #keeper: Keeper;
  readonly #api: FirecrackerApi;
  readonly #files: SnapshotFiles;
  /** What was written since the VM stopped and is not committed. */
  #written: Promise<number> | undefined;

  constructor({ keeper, api, pager, disk, files, info, pid, gone, kept }: Parts) {
    this.info = info;
    this.disk = disk;
    this.pid = pid;
    this.gone = gone;
    this.#keeper = keeper;
    this.#api = api;
    this.#files = files;
    const write = async () => void (await this.#write());
    const forget = () => {
      this.#written = undefined;
    };
    this.memory = new FirecrackerMemory({ pager, files, pid, write, forget, kept });
    this.gone.then(() => this.#api.close());
    // Not even its death is certain: it may wait in the kernel for a page that nobody brings.
    this.#api.on('stuck', () => void this.kill().catch(() => {}));
  }

  async stop(): Promise<void> {
    await this.#api.call(stateCall('Paused'));
  }

  async save(file: string): Promise<Saved> {
    const ms = await this.#write();
    const vmstateBytes = await this.#files.takeState(file);
    return { vmstateBytes, ms };
  }

  async goOn(): Promise<void> {
    this.#written = undefined;
    await this.#api.call(stateCall('Resumed'));
  }

  async kill(): Promise<void> {
    await this.#keeper.signal('vmm', 'KILL');
    await this.#keeper.wait('vmm', KILL_TIMEOUT_MS);
    this.#api.close();
  }

  console(): Promise<string> {
    return this.#keeper.logs('vmm');
  }

  /** Memory and device state come from one call. Milliseconds. */
  #write(): Promise<number> {
    this.#written ??= this.#create().catch((error: unknown) => {
      this.#written = undefined;
      throw error;
    });
    return this.#written;
  }

  async #create(): Promise<number> {
    const started = performance.now();
    await this.#files.makeRoom();
    await this.#api.call(createCall(), CREATE_TIMEOUT_MS);
    return performance.now() - started;
  }
}
