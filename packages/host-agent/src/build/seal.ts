/**
 * Turns an open build into a sealed one. What must happen while the VM stands still is over before: its files exist.
 *
 *   open: temporary folder ─► headers ─► checksums and fsync ─► manifest ─► fsync folder ─► rename ─► fsync builds/: sealed
 *
 * Sealed, it waits for `commitHead`; without one, the scope that opened it removes it.
 */
import { hash } from 'node:crypto';
import { link, readFile, rename, rm, stat } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import {
  type BuildId,
  createHeader,
  type Header,
  type Layout,
  type Machine,
  type Manifest,
  type ManifestImage,
  parseHeader,
  parseRuns,
  serialiseHeader,
  serialiseManifest,
  storedBytes,
  type WholeFile,
} from '@thaw/snapshot';
import { all } from '../os/all.ts';
import type { Steps } from '../os/step.ts';
import type { OpenBuild } from './begin.ts';
import { type Build, imageOf, sourcesOf } from './build.ts';
import { checksumChunks, storedEnd } from './checksum.ts';
import { damaged } from './damaged.ts';
import { IMAGE_FILES, type ImageKind } from './paths.ts';
import type { BuildStore } from './store.ts';
import { syncDirectory, syncFile, writeDurably } from './sync.ts';

export const BLOCK_BYTES = 4096;

export interface SealImage {
  /** Bytes of memory or disk; a disk may be larger than its parent's. */
  readonly sizeBytes: number;
  /** The build whose header the changes are laid over; null for the first. */
  readonly parent: BuildId | null;
}

/** Expected in the open build's folder: `rootfs.runs` and, with memory, `vmstate`, `memfile` and `memfile.runs`. */
export interface Seal {
  /** Absent for a build that is a disk only. */
  readonly memory?: SealImage & { readonly machine: Machine; readonly layout: Layout };
  /** `layer`: the sparse file, on the same file system, that becomes `rootfs`; without it `rootfs` is there already. */
  readonly disk: SealImage & { readonly layer?: string };
  readonly template: string | null;
  readonly guestUnresponsive?: boolean;
}

/** The header of one image and what its manifest says. */
interface Sealed {
  readonly header: Header;
  readonly facts: Omit<ManifestImage, 'chunks'>;
}

/** Labels: link-disk, write-headers, checksum, fsync-files, write-manifest, fsync-build, rename-build, fsync-builds. */
export async function sealBuild(
  store: BuildStore,
  steps: Steps,
  verb: string,
  open: OpenBuild,
  seal: Seal,
): Promise<Build> {
  const { files, id } = open;
  const { layer } = seal.disk;
  if (layer !== undefined) await steps.run(`${verb}:link-disk`, () => link(layer, files.rootfs));
  const { memory, disk } = await steps.run(`${verb}:write-headers`, async () => ({
    memory: seal.memory && (await sealImage(store, open, 'memory', seal.memory, seal.memory.layout)),
    disk: await sealImage(store, open, 'disk', seal.disk, 'sparse'),
  }));
  const names = memory === undefined ? [files.rootfs] : [files.rootfs, files.memfile, files.vmstate];
  const [content] = await all([
    steps.run(`${verb}:checksum`, async () => ({
      vmstate: memory === undefined ? null : wholeFile(await readFile(files.vmstate)),
      memory: memory && (await checksumChunks(files.memfile, memory.header)),
      disk: await checksumChunks(files.rootfs, disk.header),
    })),
    steps.run(`${verb}:fsync-files`, () => all(names.map(syncFile))),
  ]);
  const manifest: Manifest = {
    format: 1,
    id,
    created_at: new Date().toISOString(),
    template: seal.template,
    guest_unresponsive: seal.guestUnresponsive ?? false,
    machine: seal.memory?.machine ?? null,
    vmstate: content.vmstate,
    memory: memory === undefined ? null : { ...memory.facts, chunks: content.memory! },
    disk: { ...disk.facts, chunks: content.disk },
  };
  await steps.run(`${verb}:write-manifest`, async () => {
    for (const runs of [files.memfileRuns, files.rootfsRuns]) await rm(runs, { force: true });
    await writeDurably(files.manifest, serialiseManifest(manifest));
  });
  await steps.run(`${verb}:fsync-build`, () => syncDirectory(files.dir));
  const sealed = store.paths.build(id);
  await steps.run(`${verb}:rename-build`, async () => {
    store.pending.add(id);
    await rename(files.dir, sealed.dir);
  });
  await steps.run(`${verb}:fsync-builds`, () => syncDirectory(store.paths.builds));
  const build: Build = {
    id,
    files: sealed,
    manifest,
    memory: memory === undefined ? null : imageOf(store, 'memory', memory.header),
    disk: imageOf(store, 'disk', disk.header),
  };
  store.sources.set(id, sourcesOf(build));
  return build;
}

async function sealImage(
  store: BuildStore,
  open: OpenBuild,
  kind: ImageKind,
  image: SealImage,
  layout: Layout,
): Promise<Sealed> {
  const files = IMAGE_FILES[kind];
  const runs = parseRuns(await readFile(open.files[files.runs]));
  const header = createHeader({
    build: open.id,
    size: image.sizeBytes,
    blockSize: BLOCK_BYTES,
    runs,
    layout,
    parent: image.parent === null ? undefined : await parentHeader(store, image.parent, kind),
  });
  const fileBytes = (await stat(open.files[files.content])).size;
  if (fileBytes < storedEnd(header)) {
    throw new ThawError('internal', `the ${kind} written is shorter than its list of runs`, {
      cause: `${fileBytes} bytes in ${open.files[files.content]}, ${storedEnd(header)} in its runs`,
    });
  }
  const bytes = serialiseHeader(header);
  await writeDurably(open.files[files.header], bytes);
  const facts = {
    size_bytes: header.size,
    stored_bytes: storedBytes(runs),
    generation: header.generation,
    parent: image.parent,
    header: wholeFile(bytes),
    file_bytes: fileBytes,
  };
  return { header, facts };
}

async function parentHeader(store: BuildStore, parent: BuildId, kind: ImageKind): Promise<Header> {
  try {
    const header = parseHeader(await readFile(store.paths.build(parent)[IMAGE_FILES[kind].header]));
    if (header.build !== parent) throw new Error(`the header is of build ${header.build}`);
    return header;
  } catch (cause) {
    throw damaged(parent, `its ${kind} header can not be read`, cause);
  }
}

function wholeFile(bytes: Uint8Array): WholeFile {
  return { size_bytes: bytes.length, sha256: hash('sha256', bytes) };
}
