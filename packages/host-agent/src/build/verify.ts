import type { BuildId } from '@thaw/snapshot';
import type { Build } from './build.ts';
import { checksumChunks } from './checksum.ts';
import { damaged } from './damaged.ts';
import { IMAGE_FILES, type ImageKind } from './paths.ts';
import { readBuild } from './read.ts';
import type { BuildStore } from './store.ts';

/** Reads all that a build stores and compares it with its checksums. Throws `internal` for the first difference. */
export async function verifyBuild(store: BuildStore, id: BuildId): Promise<Build> {
  const build = await readBuild(store, id);
  await verifyImage(build, 'memory');
  await verifyImage(build, 'disk');
  return build;
}

async function verifyImage(build: Build, kind: ImageKind): Promise<void> {
  const expected = build.manifest[kind];
  const image = build[kind];
  if (expected === null || image === null) return;
  const found = await checksumChunks(build.files[IMAGE_FILES[kind].content], image.header);
  const known = new Map(expected.chunks);
  if (found.length !== known.size) throw damaged(build.id, `its ${kind} has another number of chunks`);
  for (const [index, sum] of found) {
    if (known.get(index) !== sum)
      throw damaged(build.id, `chunk ${index} of its ${kind} does not match its checksum`);
  }
}
