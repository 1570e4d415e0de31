// Builds the guest of all sandboxes: kernel → initramfs → root images → guest.json, which names them.
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { buildImage, type Image } from './image.ts';
import { buildInitramfs, type Initramfs } from './initramfs.ts';
import { buildKernel, type Kernel } from './kernel.ts';
import { type Lock, readLock, writeLock } from './lock.ts';
import { type ImageName, imageNames, suite } from './recipe.ts';
import { lastResult, replaceFile, sayStep } from './step.ts';

const steps = ['kernel', 'initramfs', ...imageNames] as const;

const repository = new URL('..', import.meta.url).pathname;
const usage = `usage: guest/build.sh [--only ${steps.join(',')}] [--write-lock] [OUT_DIR [BIN_DIR]]`;

async function main(): Promise<void> {
  const { only, updateLock, outDir, binDir } = readArguments();
  if (process.getuid?.() !== 0)
    throw new Error('must run as root: packages are installed into a root of their own');
  await mkdir(outDir, { recursive: true });
  const lock = updateLock ? openLock : await readLock();
  const kernel = await buildKernel(outDir, lock.kernel);
  if (only.has('initramfs')) await buildInitramfs(outDir, binDir, kernel);
  const built: Partial<Record<ImageName, Image>> = {};
  for (const name of imageNames) {
    if (only.has(name)) built[name] = await buildImage(outDir, name, lock.images[name]);
  }
  await describeGuest(outDir, kernel);
  if (updateLock) {
    const versions = imageNames.map((name) => [name, built[name]?.packages ?? {}]);
    await writeLock(kernel.packages, Object.fromEntries(versions));
  }
}

/** Locks nothing: every package in its current version. */
const openLock: Lock = { suite, kernel: {}, images: { minimal: {}, base: {} } };

function readArguments() {
  const { values, positionals } = parseArgs({
    options: { only: { type: 'string' }, 'write-lock': { type: 'boolean', default: false } },
    allowPositionals: true,
  });
  const only = new Set(values.only?.split(',') ?? steps);
  const unknown = [...only].filter((name) => !steps.some((step) => step === name));
  const updateLock = values['write-lock'];
  if (unknown.length > 0 || positionals.length > 2 || (updateLock && values.only)) throw new Error(usage);
  const target = process.env.CARGO_TARGET_DIR ?? join(repository, 'target');
  const outDir = resolve(positionals[0] ?? join(process.env.THAW_CACHE ?? '/var/cache/thaw', 'guest'));
  const binDir = resolve(positionals[1] ?? join(target, 'x86_64-unknown-linux-musl/release'));
  return { only, updateLock, outDir, binDir };
}

/** guest.json: what the folder holds, also of steps that this run left out. */
async function describeGuest(outDir: string, kernel: Kernel): Promise<void> {
  const images: Record<string, Pick<Image, 'file' | 'size_bytes' | 'id'>> = {};
  for (const name of imageNames) {
    const image = (await lastResult<Image>(outDir, name))?.result;
    if (image) images[name] = { file: image.file, size_bytes: image.size_bytes, id: image.id };
  }
  const guest = {
    kernel: { file: kernel.file, sha256: kernel.sha256, version: kernel.version },
    initramfs: (await lastResult<Initramfs>(outDir, 'initramfs'))?.result,
    images,
  };
  await replaceFile(join(outDir, 'guest.json'), `${JSON.stringify(guest, null, 2)}\n`);
  sayStep('ready', join(outDir, 'guest.json'));
}

try {
  await main();
} catch (cause) {
  console.error(`guest: ${cause instanceof Error ? cause.message : cause}`);
  process.exitCode = 1;
}
