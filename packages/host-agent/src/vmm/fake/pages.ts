/**
 * Blocks over a chain of builds: what the fake's memory and disk both are. Writes are found by being recorded; a
 * dump reads them back, as the real trackers do.
 */
import { open, readFile } from 'node:fs/promises';
import { type Header, lookup, parseHeader, type Run, ZERO_FILL } from '@thaw/snapshot';
import type { Chain } from '../vmm.ts';

export const BLOCK_BYTES = 4096;

export class Pages {
  readonly sizeBytes: number;
  /** Blocks written since the last commit, by offset; those of a dump that waits for its commit included. */
  readonly written = new Map<number, Buffer>();
  #base: { header: Header; chain: Chain } | undefined;

  private constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  static async open(sizeBytes: number, chain: Chain | undefined): Promise<Pages> {
    const pages = new Pages(sizeBytes);
    if (chain !== undefined) await pages.rebase(chain);
    return pages;
  }

  async rebase(chain: Chain): Promise<void> {
    this.#base = { header: parseHeader(await readFile(chain.header)), chain };
  }

  /** One block; `offset` is a multiple of the block size. */
  async read(offset: number): Promise<Buffer> {
    return this.written.get(offset) ?? this.#below(offset);
  }

  write(offset: number, bytes: Buffer): void {
    if (offset % BLOCK_BYTES !== 0 || offset + bytes.length > this.sizeBytes) throw new RangeError('offset');
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
      const block = Buffer.alloc(BLOCK_BYTES);
      bytes.copy(block, 0, at, at + BLOCK_BYTES);
      this.written.set(offset + at, block);
    }
  }

  /** The runs of the blocks written, with their bytes. Zero over zero is no change. */
  async changes(): Promise<{ runs: Run[]; stored: { offset: number; bytes: Buffer }[] }> {
    const runs: Run[] = [];
    const stored: { offset: number; bytes: Buffer }[] = [];
    for (const [offset, bytes] of [...this.written].sort(([left], [right]) => left - right)) {
      const zero = isZero(bytes);
      if (zero && isZero(await this.#below(offset))) continue;
      if (!zero) stored.push({ offset, bytes });
      const kind = zero ? ('zero' as const) : ('stored' as const);
      const last = runs.at(-1);
      if (last !== undefined && last.kind === kind && last.offset + last.length === offset) {
        runs[runs.length - 1] = { ...last, length: last.length + BLOCK_BYTES };
      } else runs.push({ offset, length: BLOCK_BYTES, kind });
    }
    return { runs, stored };
  }

  async #below(offset: number): Promise<Buffer> {
    const block = Buffer.alloc(BLOCK_BYTES);
    if (this.#base === undefined || offset >= this.#base.header.size) return block;
    const found = lookup(this.#base.header, offset);
    if (found.build === ZERO_FILL) return block;
    const path = this.#base.chain.builds[found.build];
    if (path === undefined) throw new Error(`no file of build ${found.build}`);
    await using file = await open(path, 'r');
    await file.read(block, 0, BLOCK_BYTES, found.storageOffset);
    return block;
  }
}

export function isZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0);
}

export function totals(runs: readonly Run[]): { storedBytes: number; zeroBytes: number } {
  const sum = (kind: Run['kind']) =>
    runs.reduce((bytes, run) => bytes + (run.kind === kind ? run.length : 0), 0);
  return { storedBytes: sum('stored'), zeroBytes: sum('zero') };
}
