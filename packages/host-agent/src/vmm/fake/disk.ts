/** The fake's disk: a top of blocks in memory, written into its file at a flush and at a rotation. */
import { open, writeFile } from 'node:fs/promises';
import { serialiseRuns } from '@thaw/snapshot';
import type { Fault } from '../../os/step.ts';
import type { Chain, Disk, DiskSpec, Layer } from '../vmm.ts';
import { Pages, totals } from './pages.ts';

export class FakeDisk implements Disk {
  readonly sizeBytes: number;
  readonly #fault: Fault;
  readonly #pages: Pages;
  #top: Layer;
  #rotated: { top: Layer; offsets: Set<number> } | undefined;

  private constructor(spec: DiskSpec, pages: Pages, fault: Fault) {
    this.sizeBytes = spec.sizeBytes;
    this.#top = spec.top;
    this.#pages = pages;
    this.#fault = fault;
  }

  static async start(spec: DiskSpec, fault: Fault): Promise<FakeDisk> {
    await makeLayer(spec.top);
    return new FakeDisk(spec, await Pages.open(spec.sizeBytes, spec.base), fault);
  }

  read(offset: number): Promise<Buffer> {
    return this.#pages.read(offset);
  }

  /** A write of the running guest. */
  write(offset: number, bytes: Buffer): void {
    this.#pages.write(offset, bytes);
    for (let at = offset; at < offset + bytes.length; at += 4096) this.#rotated?.offsets.delete(at);
  }

  async flush(): Promise<void> {
    await this.#fault('disk:flush');
    await this.#store(this.#top);
  }

  async rotate(top: Layer, runs: string): Promise<{ storedBytes: number; zeroBytes: number }> {
    await this.#fault('disk:rotate');
    if (this.#rotated !== undefined) throw new Error('a layer waits for its commit or abort');
    await makeLayer(top);
    const changed = await this.#store(this.#top);
    await writeFile(runs, serialiseRuns(changed), { flag: 'wx' });
    this.#rotated = { top: this.#top, offsets: new Set(this.#pages.written.keys()) };
    this.#top = top;
    return totals(changed);
  }

  async commit(chain: Chain): Promise<void> {
    await this.#fault('disk:commit');
    if (this.#rotated === undefined) throw new Error('nothing was rotated');
    await this.#pages.rebase(chain);
    for (const offset of this.#rotated.offsets) this.#pages.written.delete(offset);
    this.#rotated = undefined;
  }

  async abort(): Promise<void> {
    await this.#fault('disk:abort');
    if (this.#rotated === undefined) return;
    this.#top = this.#rotated.top;
    this.#rotated = undefined;
  }

  async stats(): Promise<Record<string, unknown>> {
    return { uncommitted: this.#rotated !== undefined };
  }

  async #store(layer: Layer) {
    const { runs, stored } = await this.#pages.changes();
    await using file = await open(layer.data, 'r+');
    for (const { offset, bytes } of stored) await file.write(bytes, 0, bytes.length, offset);
    return runs;
  }
}

async function makeLayer(layer: Layer): Promise<void> {
  await writeFile(layer.data, '', { flag: 'wx' });
  await writeFile(layer.zeros, '', { flag: 'wx' });
}
