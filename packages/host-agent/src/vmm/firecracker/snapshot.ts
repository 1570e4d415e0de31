/**
 * The files that Firecracker writes when a stopped VM is sealed, in a folder that it shares with the host.
 *
 *   (none) ── write ─► written ── collect ─► taken (root's, also in the open build) ── commit ─► (none)
 *                         ▲                        │
 *                         └── write on ── abort ───┘
 *
 * Writing makes Firecracker forget which pages had changed. What was not committed is written on at the next seal.
 */
import { chmod, chown, copyFile, link, mkdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { exists } from '../../os/exists.ts';
import { SNAPSHOT } from './config.ts';

export class SnapshotFiles {
  readonly dir: string;
  readonly #uid: number;

  constructor(dir: string, uid: number) {
    this.dir = dir;
    this.#uid = uid;
  }

  /** Makes the folder, empty; with the device state that is to be loaded. */
  static async create(dir: string, uid: number, vmstate?: string): Promise<SnapshotFiles> {
    const files = new SnapshotFiles(dir, uid);
    await rm(dir, { recursive: true, force: true });
    await mkdir(dir, { recursive: true, mode: 0o700 });
    await chown(dir, uid, uid);
    if (vmstate !== undefined) {
      await copyFile(vmstate, files.#path(SNAPSHOT.loaded));
      await chown(files.#path(SNAPSHOT.loaded), uid, uid);
    }
    return files;
  }

  get memory(): string {
    return this.#path(SNAPSHOT.memory);
  }

  isThere(): Promise<boolean> {
    return exists(this.memory);
  }

  /** A state is written anew each time: the last one may be part of a build by now. */
  async makeRoom(): Promise<void> {
    await rm(this.#path(SNAPSHOT.state), { force: true });
  }

  /** Bytes of it. */
  async takeState(file: string): Promise<number> {
    await this.#take(SNAPSHOT.state, file);
    return (await stat(file)).size;
  }

  async takeMemory(file: string): Promise<void> {
    await this.#take(SNAPSHOT.memory, file);
  }

  /** Firecracker may write on it again. */
  async giveBack(): Promise<void> {
    if (await this.isThere()) await chown(this.memory, this.#uid, this.#uid);
  }

  /** The memory file belongs to a build when `then` is done; the next one is another. */
  async letGo(then: () => Promise<void>): Promise<void> {
    const aside = `${this.memory}.committed`;
    await rename(this.memory, aside);
    try {
      await then();
    } catch (error) {
      await rename(aside, this.memory);
      throw error;
    }
    await rm(aside, { force: true });
  }

  /** No copy: `file`, on the same file system and new, is another name of it. */
  async #take(name: string, file: string): Promise<void> {
    await link(this.#path(name), file);
    await chown(file, 0, 0);
    await chmod(file, 0o600);
  }

  #path(name: string): string {
    return path.join(this.dir, name);
  }
}
