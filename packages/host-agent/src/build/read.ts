/** Reads a build for a restore: what is small is verified in full, what is read lazily by its size. */
import { hash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import {
  type BuildId,
  type Manifest,
  type ManifestImage,
  parseHeader,
  parseManifest,
  type WholeFile,
} from '@thaw/snapshot';
import { type Build, type Image, imageOf } from './build.ts';
import { damaged, isMissing } from './damaged.ts';
import { IMAGE_FILES, type ImageKind } from './paths.ts';
import type { BuildStore } from './store.ts';

/**
 * Throws `internal` with a message that names the build and the part when anything a restore needs is missing, cut or
 * changed, in this build or in one that its headers name.
 */
export async function readBuild(store: BuildStore, id: BuildId): Promise<Build> {
  const files = store.paths.build(id);
  const manifest = await readManifest(store, id);
  const [vmstate, memory, disk] = await Promise.allSettled([
    manifest.vmstate === null ? null : readWhole(id, 'vmstate', files.vmstate, manifest.vmstate),
    manifest.memory === null ? null : readImage(store, id, 'memory', manifest.memory),
    readImage(store, id, 'disk', manifest.disk),
  ]);
  if (vmstate.status === 'rejected') throw vmstate.reason;
  if (memory.status === 'rejected') throw memory.reason;
  if (disk.status === 'rejected') throw disk.reason;
  return { id, files, manifest, memory: memory.value, disk: disk.value };
}

/** Throws `internal` if there is no such build or its manifest is damaged. */
export async function readManifest(store: BuildStore, id: BuildId): Promise<Manifest> {
  try {
    const manifest = parseManifest(await readFile(store.paths.build(id).manifest, 'utf8'));
    if (manifest.id !== id) throw new Error(`the manifest is of build ${manifest.id}`);
    return manifest;
  } catch (cause) {
    throw damaged(id, isMissing(cause) ? 'it is not on this host' : 'its manifest can not be read', cause);
  }
}

/** The bytes of a file that is verified whole. */
export async function readWhole(
  id: BuildId,
  what: string,
  file: string,
  expected: WholeFile,
): Promise<Buffer> {
  let bytes: Buffer;
  try {
    const { size } = await stat(file);
    if (size !== expected.size_bytes)
      throw damaged(id, `its ${what} has ${size} bytes instead of ${expected.size_bytes}`);
    bytes = await readFile(file);
  } catch (cause) {
    if (isMissing(cause)) throw damaged(id, `its ${what} is missing`, cause);
    throw cause;
  }
  if (hash('sha256', bytes) !== expected.sha256) throw damaged(id, `its ${what} does not match its checksum`);
  return bytes;
}

async function readImage(
  store: BuildStore,
  id: BuildId,
  kind: ImageKind,
  expected: Omit<ManifestImage, 'chunks'>,
): Promise<Image> {
  const files = IMAGE_FILES[kind];
  const bytes = await readWhole(id, `${kind} header`, store.paths.build(id)[files.header], expected.header);
  let image: Image;
  try {
    image = imageOf(store, kind, parseHeader(bytes));
  } catch (cause) {
    throw damaged(id, `its ${kind} header is invalid`, cause);
  }
  const { build, size, generation } = image.header;
  if (build !== id || size !== expected.size_bytes || generation !== expected.generation) {
    throw damaged(id, `its ${kind} header and its manifest do not agree`);
  }
  await checkSize(id, kind, store.paths.build(id)[files.content], expected.file_bytes, 'exactly');
  const ends = [...endsBySource(image)];
  await Promise.all(
    ends.map(([source, end]) =>
      checkSize(source, kind, store.paths.build(source)[files.content], end, 'at least'),
    ),
  );
  return image;
}

/** Up to where each build's file is read. */
function endsBySource({ header, sources }: Image): Map<BuildId, number> {
  const ends = new Map<BuildId, number>();
  for (const { build, storageOffset, length } of header.entries) {
    if (sources.has(build)) ends.set(build, Math.max(ends.get(build) ?? 0, storageOffset + length));
  }
  return ends;
}

async function checkSize(
  id: BuildId,
  kind: ImageKind,
  file: string,
  bytes: number,
  how: 'exactly' | 'at least',
): Promise<void> {
  let size: number;
  try {
    size = (await stat(file)).size;
  } catch (cause) {
    throw damaged(id, `its ${kind} is missing`, cause);
  }
  if (how === 'exactly' ? size !== bytes : size < bytes) {
    throw damaged(id, `its ${kind} has ${size} bytes instead of ${how} ${bytes}`);
  }
}
