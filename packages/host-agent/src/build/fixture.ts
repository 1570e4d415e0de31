/** For tests: real stores in a folder of their own, and builds whose whole content is known. */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { type Machine, type Run, serialiseRuns, ZERO_FILL } from '@thaw/snapshot';
import { Steps } from '../os/step.ts';
import { beginBuild, type OpenBuild } from './begin.ts';
import type { Build, Image } from './build.ts';
import { commitHead } from './head.ts';
import type { HeadOwner } from './paths.ts';
import { BLOCK_BYTES, sealBuild } from './seal.ts';
import { type BuildStore, openBuildStore } from './store.ts';

export const MACHINE: Machine = {
  vmm: 'qemu',
  vmm_version: '7.2.22',
  machine_type: 'microvm',
  cpu_model: 'qemu64',
  accelerator: 'tcg',
  tsc_khz: 2_596_120,
  kernel: '6.1.0',
  guest_agent: 'agent',
  preload: 'preload',
  vcpus: 1,
};

export const SANDBOX: HeadOwner = { kind: 'sandbox', id: 'sb1' };

export async function testStore(t: TestContext): Promise<BuildStore> {
  const data = await mkdtemp(path.join(tmpdir(), 'thaw-builds-'));
  t.after(() => rm(data, { recursive: true, force: true }));
  return await openBuildStore(data);
}

/** Blocks by letter: D new random bytes, 0 zero now, . as in the parent. */
export interface Change {
  readonly memory: string;
  readonly disk: string;
}

/** What the guest would read. */
export interface Content {
  readonly memory: Buffer;
  readonly disk: Buffer;
}

/** Writes what pager and block store would, and the content that results. Removes nothing: `layer` stays the caller's. */
export async function fillBuild(
  store: BuildStore,
  build: OpenBuild,
  change: Change,
  before: Content | undefined,
): Promise<{ content: Content; layer: string }> {
  const memory = apply(change.memory, before?.memory);
  const disk = apply(change.disk, before?.disk);
  const packed = memory.runs
    .filter(({ kind }) => kind === 'stored')
    .map(({ offset, length }) => memory.content.subarray(offset, offset + length));
  await writeFile(build.files.vmstate, randomBytes(5000));
  await writeFile(build.files.memfile, Buffer.concat(packed));
  await writeFile(build.files.memfileRuns, serialiseRuns(memory.runs));
  await writeFile(build.files.rootfsRuns, serialiseRuns(disk.runs));
  const layer = path.join(store.paths.data, `${randomUUID()}.top`);
  await using file = await open(layer, 'wx');
  await file.truncate(disk.content.length);
  for (const { offset, length, kind } of disk.runs) {
    if (kind === 'stored') await file.write(disk.content, offset, length, offset);
  }
  return { content: { memory: memory.content, disk: disk.content }, layer };
}

/** Begins, fills, seals and commits: a whole pause as the store sees it. */
export async function pauseInto(
  store: BuildStore,
  change: Change,
  parent?: { build: Build; content: Content },
  options: { steps?: Steps; owner?: HeadOwner } = {},
): Promise<{ build: Build; content: Content }> {
  const steps = options.steps ?? new Steps();
  await using open = await beginBuild(store, steps, 'pause');
  const { content, layer } = await fillBuild(store, open, change, parent?.content);
  const from = parent?.build.id ?? null;
  const build = await sealBuild(store, steps, 'pause', open, {
    memory: { sizeBytes: content.memory.length, parent: from, machine: MACHINE, layout: 'packed' },
    disk: { sizeBytes: content.disk.length, parent: from, layer },
    template: 'minimal',
  });
  await commitHead(store, steps, 'pause', options.owner ?? SANDBOX, { build: build.id, facts: {} });
  await rm(layer);
  return { build, content };
}

/** The whole memory or disk, put together as a reader does: entry by entry. */
export async function assemble({ header, sources }: Image): Promise<Buffer> {
  const whole = Buffer.alloc(header.size);
  for (const { offset, length, build, storageOffset } of header.entries) {
    if (build === ZERO_FILL) continue;
    const file = await readFile(sources.get(build)!);
    file.copy(whole, offset, storageOffset, storageOffset + length);
  }
  return whole;
}

function apply(states: string, before: Buffer | undefined): { content: Buffer; runs: Run[] } {
  const content = Buffer.alloc(states.length * BLOCK_BYTES);
  before?.copy(content);
  const runs: Run[] = [];
  for (const [block, state] of [...states].entries()) {
    const offset = block * BLOCK_BYTES;
    if (state === '.') continue;
    if (state === 'D') randomBytes(BLOCK_BYTES).copy(content, offset);
    else content.fill(0, offset, offset + BLOCK_BYTES);
    runs.push({ offset, length: BLOCK_BYTES, kind: state === 'D' ? 'stored' : 'zero' });
  }
  return { content, runs };
}
