/** Where builds and heads are on the host. */
import path from 'node:path';
import { ThawError } from '@thaw/api';
import { type BuildId, isBuildId } from '@thaw/snapshot';

/** `boot`: what a base template is when it has just booted in one size. */
export const OWNER_KINDS = ['sandbox', 'template', 'boot'] as const;

/** Whose head it is. */
export interface HeadOwner {
  readonly kind: (typeof OWNER_KINDS)[number];
  readonly id: string;
}

/** The files of one build's folder. */
export class BuildFiles {
  readonly dir: string;

  constructor(dir: string) {
    this.dir = dir;
  }

  get manifest(): string {
    return path.join(this.dir, 'manifest.json');
  }

  get vmstate(): string {
    return path.join(this.dir, 'vmstate');
  }

  get memfile(): string {
    return path.join(this.dir, 'memfile');
  }

  get memfileHeader(): string {
    return path.join(this.dir, 'memfile.header');
  }

  /** Pages that the last start needed; a hint, in no manifest. */
  get workset(): string {
    return path.join(this.dir, 'workset');
  }

  get rootfs(): string {
    return path.join(this.dir, 'rootfs');
  }

  get rootfsHeader(): string {
    return path.join(this.dir, 'rootfs.header');
  }

  /** What changed in memory and on disk; only while the build is open. */
  get memfileRuns(): string {
    return path.join(this.dir, 'memfile.runs');
  }

  get rootfsRuns(): string {
    return path.join(this.dir, 'rootfs.runs');
  }
}

/** Which files hold a build's memory and disk; the runs exist only while it is open. */
export const IMAGE_FILES = {
  memory: { content: 'memfile', header: 'memfileHeader', runs: 'memfileRuns' },
  disk: { content: 'rootfs', header: 'rootfsHeader', runs: 'rootfsRuns' },
} as const;

export type ImageKind = keyof typeof IMAGE_FILES;

const TEMPORARY = '.tmp-';
/** Templates have a head for each of their tags: `id:tag`. */
const OWNER_ID = /^[a-z0-9][a-z0-9_-]{0,62}(:[a-z0-9_.-]{1,128})?$/;
const OWNER_DIRS = { sandbox: 'sandboxes', template: 'templates', boot: 'boots' } as const;

/** Ids come from callers: one that could leave its folder is refused here, for every path. */
export class BuildPaths {
  readonly data: string;

  constructor(data: string) {
    this.data = data;
  }

  get builds(): string {
    return path.join(this.data, 'builds');
  }

  build(id: BuildId): BuildFiles {
    return new BuildFiles(path.join(this.builds, checkedBuild(id)));
  }

  /** The folder of a build that is being written or removed. */
  temporary(id: BuildId): BuildFiles {
    return new BuildFiles(path.join(this.builds, TEMPORARY + checkedBuild(id)));
  }

  owners(kind: HeadOwner['kind']): string {
    return path.join(this.data, OWNER_DIRS[kind]);
  }

  owner({ kind, id }: HeadOwner): string {
    if (!OWNER_ID.test(id))
      throw new ThawError('invalid_request', `"${id.slice(0, 80)}" is not the id of a ${kind}`);
    return path.join(this.owners(kind), id);
  }

  head(owner: HeadOwner): string {
    return path.join(this.owner(owner), 'head');
  }
}

/** The build that a name in `builds/` stands for; undefined if it is none of ours. */
export function namedBuild(name: string): { id: BuildId; temporary: boolean } | undefined {
  const temporary = name.startsWith(TEMPORARY);
  const id = temporary ? name.slice(TEMPORARY.length) : name;
  return isBuildId(id) ? { id, temporary } : undefined;
}

export function isOwnerId(name: string): boolean {
  return OWNER_ID.test(name);
}

function checkedBuild(id: BuildId): BuildId {
  if (!isBuildId(id)) throw new ThawError('invalid_request', `"${id.slice(0, 80)}" is not the id of a build`);
  return id;
}
