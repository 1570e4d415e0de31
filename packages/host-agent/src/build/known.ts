/**
 * Builds that were verified a while ago. They never change, and so they are not read again until a file of theirs looks as if
 * it had: another inode, size or time of change.
 */
import { stat } from 'node:fs/promises';
import type { BuildId } from '@thaw/snapshot';
import type { Build } from './build.ts';

/** The last ones used. */
const BUILDS_MAX = 8;
/** One with more takes memory rather than time. */
const ENTRIES_MAX = 20_000;

export class KnownBuilds {
  readonly #builds = new Map<BuildId, { build: Build; marks: string }>();

  /** What `read` answers, or answered once. Throws what `read` throws. */
  async get(id: BuildId, read: () => Promise<Build>): Promise<Build> {
    const known = this.#builds.get(id);
    this.#builds.delete(id);
    if (known !== undefined && (await marksOf(known.build)) === known.marks) {
      this.#keep(id, known);
      return known.build;
    }
    const build = await read();
    const entries = build.disk.header.entries.length + (build.memory?.header.entries.length ?? 0);
    const marks = entries > ENTRIES_MAX ? undefined : await marksOf(build);
    if (marks !== undefined) this.#keep(id, { build, marks });
    return build;
  }

  /** As the last one used; it is not there. */
  #keep(id: BuildId, known: { build: Build; marks: string }): void {
    this.#builds.set(id, known);
    for (const oldest of this.#builds.keys()) {
      if (this.#builds.size <= BUILDS_MAX) break;
      this.#builds.delete(oldest);
    }
  }
}

/** Undefined if one of its files is not there. */
async function marksOf({ files, manifest, memory, disk }: Build): Promise<string | undefined> {
  const images = memory === null ? [disk] : [memory, disk];
  const all = [
    files.manifest,
    // Its own content even where its header names none of it.
    files.rootfs,
    ...(memory === null ? [] : [files.memfile]),
    ...(manifest.vmstate === null ? [] : [files.vmstate]),
    ...images.flatMap(({ headerFile, sources }) => [headerFile, ...sources.values()]),
  ];
  try {
    const found = await Promise.all(all.map((file) => stat(file, { bigint: true })));
    return found.map(({ ino, size, ctimeNs }) => `${ino} ${size} ${ctimeNs}`).join();
  } catch {
    return undefined;
  }
}
