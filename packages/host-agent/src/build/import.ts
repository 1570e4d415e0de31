/** Makes a base image the disk-only build that a template's sandboxes start from. */
import { type FileHandle, link, open, stat, writeFile } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import { type Run, serialiseRuns } from '@thaw/snapshot';
import type { Steps } from '../os/step.ts';
import { beginBuild } from './begin.ts';
import type { Build } from './build.ts';
import { commitHead, type Facts } from './head.ts';
import { releaseBuild } from './release.ts';
import { BLOCK_BYTES, sealBuild } from './seal.ts';
import { readSpan, writeSpan } from './span.ts';
import type { BuildStore } from './store.ts';

export interface ImportImage {
  /** A raw ext4 image; it must never be written again: the build may share its blocks. */
  readonly image: string;
  /** The template whose head will name the build. */
  readonly template: string;
  readonly facts: Facts;
}

const READ_BYTES = 1 << 20;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

/** Replaces what the template named before. All-zero blocks of the image become zero fill. */
export async function importImage(
  store: BuildStore,
  steps: Steps,
  verb: string,
  { image, template, facts }: ImportImage,
): Promise<Build> {
  const sizeBytes = (await stat(image)).size;
  if (sizeBytes === 0 || sizeBytes % BLOCK_BYTES !== 0) {
    throw new ThawError('invalid_request', `an image can't be ${sizeBytes} bytes long`);
  }
  await using build = await beginBuild(store, steps, verb);
  await steps.run(`${verb}:take-image`, async () => {
    const runs = await takeImage(image, build.files.rootfs);
    await writeFile(build.files.rootfsRuns, serialiseRuns(runs), { mode: 0o600 });
  });
  const sealed = await sealBuild(store, steps, verb, build, { disk: { sizeBytes, parent: null }, template });
  const owner = { kind: 'template', id: template } as const;
  const before = await commitHead(store, steps, verb, owner, { build: sealed.id, facts });
  if (before !== undefined) await releaseBuild(store, steps, verb, before.build);
  return sealed;
}

/** A link where image and builds share a file system, else a sparse copy. Returns what is stored. */
async function takeImage(image: string, target: string): Promise<Run[]> {
  await using source = await open(image, 'r');
  if (await linked(image, target)) return await findStored(source);
  await using copy = await open(target, 'wx', 0o600);
  await copy.truncate((await source.stat()).size);
  return await findStored(source, copy);
}

async function linked(image: string, target: string): Promise<boolean> {
  try {
    await link(image, target);
    return true;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'EXDEV' && code !== 'EPERM' && code !== 'EMLINK') throw error;
    return false;
  }
}

/** The runs of blocks that are not all zero; they are written to `copy`, if there is one, at the same offsets. */
async function findStored(source: FileHandle, copy?: FileHandle): Promise<Run[]> {
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  const runs: Run[] = [];
  for (let at = 0; ; ) {
    const bytes = await readSpan(source, buffer, at);
    if (bytes === 0) return runs;
    for (const { start, end } of nonZero(buffer.subarray(0, bytes))) {
      if (copy !== undefined) await writeSpan(copy, buffer.subarray(start, end), at + start);
      append(runs, { offset: at + start, length: end - start, kind: 'stored' });
    }
    at += bytes;
  }
}

function* nonZero(bytes: Buffer): Generator<{ start: number; end: number }> {
  let start = 0;
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    if (!ZEROS.equals(bytes.subarray(at, at + BLOCK_BYTES))) continue;
    if (at > start) yield { start, end: at };
    start = at + BLOCK_BYTES;
  }
  if (bytes.length > start) yield { start, end: bytes.length };
}

function append(runs: Run[], run: Run): void {
  const last = runs.at(-1);
  if (last !== undefined && last.offset + last.length === run.offset) {
    runs[runs.length - 1] = { ...last, length: last.length + run.length };
  } else {
    runs.push(run);
  }
}
