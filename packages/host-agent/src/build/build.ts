import { type BuildId, buildsOf, type Header, type Manifest } from '@thaw/snapshot';
import { type BuildFiles, IMAGE_FILES, type ImageKind } from './paths.ts';
import type { BuildStore } from './store.ts';

/** The memory or disk of a sealed build. */
export interface Image {
  readonly header: Header;
  readonly headerFile: string;
  /** The file of each build that the header names. */
  readonly sources: ReadonlyMap<BuildId, string>;
}

/** A sealed build, ready to be restored or to be a parent. */
export interface Build {
  readonly id: BuildId;
  readonly files: BuildFiles;
  readonly manifest: Manifest;
  /** Null if the build is a disk only. */
  readonly memory: Image | null;
  readonly disk: Image;
}

export function imageOf(store: BuildStore, kind: ImageKind, header: Header): Image {
  const { content, header: headerFile } = IMAGE_FILES[kind];
  const sources = new Map(buildsOf(header).map((id) => [id, store.paths.build(id)[content]]));
  return { header, headerFile: store.paths.build(header.build)[headerFile], sources };
}

/** Every build that a restore of `build` reads from, itself included. */
export function sourcesOf({ id, memory, disk }: Pick<Build, 'id' | 'memory' | 'disk'>): BuildId[] {
  return [...new Set([id, ...(memory?.sources.keys() ?? []), ...disk.sources.keys()])];
}
