/** The fake's memory: dirty blocks are written, committed and kept as the pager does it. */
import { writeFile } from 'node:fs/promises';
import { serialiseRuns } from '@thaw/snapshot';
import type { Fault } from '../../os/step.ts';
import type { Backend, Chain, Dumped, Memory, MemoryStats } from '../vmm.ts';
import { type Pages, totals } from './pages.ts';

export class FakeMemory implements Memory {
  readonly backend: Backend;
  readonly tracker = 'scan';
  readonly pages: Pages;
  readonly #fault: Fault;
  #dumped: Set<number> | undefined;

  constructor(pages: Pages, backend: Backend, fault: Fault) {
    this.pages = pages;
    this.backend = backend;
    this.#fault = fault;
  }

  /** Its dumps are quick. */
  async preDump(): Promise<void> {
    await this.#fault('memory:pre-dump');
  }

  async dump(files: { memfile: string; runs: string }): Promise<Dumped> {
    await this.#fault('memory:dump');
    const { runs, stored } = await this.pages.changes();
    await writeFile(files.memfile, Buffer.concat(stored.map(({ bytes }) => bytes)), { flag: 'wx' });
    await writeFile(files.runs, serialiseRuns(runs), { flag: 'wx' });
    this.#dumped = new Set(this.pages.written.keys());
    const sizes = totals(runs);
    return { ...sizes, layout: 'packed', readBytes: sizes.storedBytes, scanUs: 0, copyUs: 0 };
  }

  async commit(chain: Chain): Promise<void> {
    await this.#fault('memory:commit');
    if (this.#dumped === undefined) throw new Error('nothing was dumped');
    await this.pages.rebase(chain);
    // Written again since, or not: the base has what the dump had, and later writes are in the map anew.
    for (const offset of this.#dumped) this.pages.written.delete(offset);
    this.#dumped = undefined;
  }

  async abort(): Promise<void> {
    await this.#fault('memory:abort');
    this.#dumped = undefined;
  }

  /** A write of the running guest: what a dump holds already is dirty again. */
  write(offset: number, bytes: Buffer): void {
    this.pages.write(offset, bytes);
    for (let at = offset; at < offset + bytes.length; at += 4096) this.#dumped?.delete(at);
  }

  async endWorkset(): Promise<void> {
    await this.#fault('memory:workset');
  }

  async writeWorkset(file: string): Promise<boolean> {
    await this.#fault('memory:workset');
    await writeFile(file, '', { flag: 'wx' });
    return false;
  }

  async stats(): Promise<MemoryStats> {
    return {
      faults: 0,
      pagesFaulted: 0,
      pagesAhead: 0,
      untouchedBytes: 0,
      bytesCopied: 0,
      bytesZeroed: 0,
      bytesByBuild: {},
      latencyUs: { p50: 0, p90: 0, p99: 0, max: 0, buckets: [] },
      removedPages: 0,
      readFrozenBytes: 0,
      tracker: this.tracker,
      residentBytes: this.pages.written.size * 4096,
    };
  }
}
