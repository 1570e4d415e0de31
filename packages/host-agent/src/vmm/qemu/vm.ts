/** A running QEMU, driven through its monitor. */
import path from 'node:path';
import { ThawError } from '@thaw/api';
import { z } from 'zod';
import type { Exit, Keeper } from '../../keeper/keeper.ts';
import type { Disk, Memory, Saved, Vm, VmmInfo } from '../vmm.ts';
import { FD, JAIL } from './argv.ts';
import type { Qmp } from './qmp.ts';

interface Parts {
  keeper: Keeper;
  qmp: Qmp;
  memory: Memory;
  disk: Disk;
  info: VmmInfo;
  pid: number;
  gone: Promise<Exit>;
  /** The VMM's user. */
  uid: number;
}

const MIGRATION_TIMEOUT_MS = 30_000;
const KILL_TIMEOUT_MS = 10_000;
const STATE_BYTES_PER_SEC = 1e11;

const migrationSchema = z.object({ status: z.string() });

export class QemuVm implements Vm {
  readonly info: VmmInfo;
  readonly memory: Memory;
  readonly disk: Disk;
  readonly pid: number;
  readonly gone: Promise<Exit>;
  readonly #keeper: Keeper;
  readonly #qmp: Qmp;
  readonly #uid: number;

  constructor(parts: Parts) {
    this.info = parts.info;
    this.memory = parts.memory;
    this.disk = parts.disk;
    this.pid = parts.pid;
    this.#keeper = parts.keeper;
    this.#qmp = parts.qmp;
    this.#uid = parts.uid;
    this.gone = parts.gone;
    this.gone.then(() => this.#qmp.close());
    this.#qmp.on('stuck', () => void this.kill().catch(() => {}));
  }

  /** Settings that hold as long as QEMU runs. `events` tells the end of a migration without asking for it. */
  async prepare(): Promise<void> {
    const capabilities = ['x-ignore-shared', 'events'].map((capability) => ({ capability, state: true }));
    await Promise.all([
      this.#qmp.command('migrate-set-capabilities', { capabilities }),
      this.#qmp.command('migrate-set-parameters', { 'max-bandwidth': STATE_BYTES_PER_SEC }),
    ]);
  }

  /** Loads the inherited device state. */
  async load(): Promise<void> {
    await this.#migrate('migrate-incoming', `fd:${FD.vmstate}`);
  }

  async stop(): Promise<void> {
    await this.#qmp.command('stop');
  }

  async save(file: string): Promise<Saved> {
    const started = performance.now();
    await this.#keeper.receive(path.join(this.#keeper.runDir, 'vmm', 'save.sock'), file, this.#uid);
    await this.#migrate('migrate', `unix:${JAIL.saveSocket}`);
    const vmstateBytes = await this.#keeper.received(MIGRATION_TIMEOUT_MS);
    return { vmstateBytes, ms: performance.now() - started };
  }

  async goOn(): Promise<void> {
    await this.#qmp.command('cont');
  }

  async kill(): Promise<void> {
    await this.#keeper.signal('vmm', 'KILL');
    await this.#keeper.wait('vmm', KILL_TIMEOUT_MS);
    this.#qmp.close();
  }

  console(): Promise<string> {
    return this.#keeper.logs('vmm');
  }

  /** Runs one migration, out or in, to its end. After the timeout the VM is killed. */
  async #migrate(command: 'migrate' | 'migrate-incoming', uri: string): Promise<void> {
    const { promise: ended, resolve, reject } = Promise.withResolvers<void>();
    ended.catch(() => {});
    const onEvent = (name: string, data: Record<string, unknown>) => {
      const status = name === 'MIGRATION' ? migrationSchema.safeParse(data).data?.status : undefined;
      if (status === 'completed') resolve();
      if (status === 'failed' || status === 'cancelled') {
        reject(new ThawError('internal', 'the device state could not be moved', { cause: status }));
      }
    };
    const timer = setTimeout(() => {
      reject(new ThawError('timeout', 'the VM did not answer in time', { cause: command }));
      this.kill().catch(() => {});
    }, MIGRATION_TIMEOUT_MS);
    this.gone.then(() => reject(new ThawError('internal', 'the VM ended', { cause: command })));
    this.#qmp.on('event', onEvent);
    try {
      await this.#qmp.command(command, { uri });
      await ended;
    } finally {
      clearTimeout(timer);
      this.#qmp.off('event', onEvent);
    }
  }
}
