/**
 * The memory of a VM under Firecracker. It tracks the guest's writes itself and writes what changed; the pager serves what
 * is missing after a restore, and makes the build's diff of what was written.
 */
import { readFile } from 'node:fs/promises';
import type { Pager } from '../memory.ts';
import type { Chain, Dumped, Memory, MemoryStats, Tracker } from '../vmm.ts';
import type { SnapshotFiles } from './snapshot.ts';

interface Parts {
  pager: Pager;
  files: SnapshotFiles;
  pid: number;
  /** Has Firecracker write memory and device state, unless it has since the VM stopped or `forget` was called. */
  write: () => Promise<void>;
  forget: () => void;
  /** The memory file holds what an earlier seal did not commit. */
  kept: boolean;
}

export class FirecrackerMemory implements Memory {
  readonly backend = 'uffd';
  readonly tracker: Tracker;
  readonly #pager: Pager;
  readonly #files: SnapshotFiles;
  readonly #pid: number;
  readonly #write: () => Promise<void>;
  readonly #forget: () => void;
  #kept: boolean;

  constructor({ pager, files, pid, write, forget, kept }: Parts) {
    this.tracker = pager.tracker;
    this.#pager = pager;
    this.#files = files;
    this.#pid = pid;
    this.#write = write;
    this.#forget = forget;
    this.#kept = kept;
  }

  /** What it has written, Firecracker tells only by writing it out, and it has to stand still for that. */
  async preDump(): Promise<void> {}

  async dump({ memfile, runs }: { memfile: string; runs: string }): Promise<Dumped> {
    await this.#write();
    const kept = this.#kept;
    this.#kept = true;
    const dumped = await this.#pager.collect(this.#files.memory, runs, kept);
    await this.#files.takeMemory(memfile);
    return dumped;
  }

  async commit(chain: Chain): Promise<void> {
    await this.#files.letGo(() => this.#pager.commit(chain));
    this.#kept = false;
    this.#forget();
  }

  async abort(): Promise<void> {
    await this.#files.giveBack();
    await this.#pager.abort();
  }

  endWorkset(): Promise<void> {
    return this.#pager.endWorkset();
  }

  writeWorkset(file: string): Promise<boolean> {
    return this.#pager.writeWorkset(file);
  }

  /** Memory that Firecracker filled itself is unknown to the pager: the process tells how much there is. */
  async stats(): Promise<MemoryStats> {
    const stats = await this.#pager.stats();
    return stats.residentBytes > 0 ? stats : { ...stats, residentBytes: await residentBytes(this.#pid) };
  }
}

async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}
