/**
 * Collects what a backup holds of this host, while the host agent works on: builds never change, so links to their files
 * keep them whatever becomes of them meanwhile. Each sandbox and template is saved at its last build.
 */
import { copyFile, link, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { BuildId } from '@thaw/snapshot';
import { isMissing } from '../build/damaged.ts';
import { listHeads, readHead } from '../build/head.ts';
import { readSources } from '../build/mark.ts';
import { BuildFiles, type HeadOwner } from '../build/paths.ts';
import { readBuild } from '../build/read.ts';
import { BuildStore } from '../build/store.ts';
import { SandboxPaths } from '../sandbox/paths.ts';
import { isPaused, readRecords, type SandboxRecord } from '../sandbox/record.ts';

/** A build that is replaced while it is linked is looked for again under its owner's new head. */
const TRIES = 20;
const RECORD = path.basename(new BuildFiles('').workset);

export interface Staged {
  sandboxes: { id: string; running: boolean }[];
  templates: string[];
  /** What the backup does not hold, and why. */
  left_out: { kind: HeadOwner['kind']; id: string; reason: string }[];
}

/**
 * Fills `into`, an empty folder in the file system of `data`, with the templates and those of the sandboxes `ids` that have
 * a build of their own; its layout is that of a data folder.
 */
export async function stage(data: string, into: string, ids: ReadonlySet<string>): Promise<Staged> {
  const from = new BuildStore(data);
  const to = new BuildStore(into);
  const staged: Staged = { sandboxes: [], templates: [], left_out: [] };
  for (const folder of [to.paths.builds, to.paths.owners('sandbox'), to.paths.owners('template')])
    await mkdir(folder, { recursive: true, mode: 0o700 });
  await linkFolder(path.join(data, 'boot'), path.join(into, 'boot'));
  const leaveOut = (owner: HeadOwner, error: unknown) =>
    staged.left_out.push({ ...owner, reason: error instanceof Error ? error.message : String(error) });

  // Records before heads: a pause in between is seen in the head.
  const records = await readRecords({ data, run: data }, (id, error) => {
    if (ids.has(id)) leaveOut({ kind: 'sandbox', id }, error);
  });
  for (const { owner } of await listHeads(from, 'template')) {
    await stageOwner(from, to, owner).then(
      (found) => found && staged.templates.push(owner.id),
      (error) => leaveOut(owner, error),
    );
  }
  for (const record of records.filter(({ id }) => ids.has(id))) {
    const owner = { kind: 'sandbox', id: record.id } as const;
    try {
      const found = await stageOwner(from, to, owner);
      if (found === undefined) continue;
      const running = !isPaused(record, found.facts);
      if (!found.sealed) {
        await rm(to.paths.owner(owner), { recursive: true, force: true });
        leaveOut(owner, 'it has never been paused');
        continue;
      }
      await writeRecordOf(into, record, running);
      staged.sandboxes.push({ id: record.id, running });
    } catch (error) {
      await rm(to.paths.owner(owner), { recursive: true, force: true });
      leaveOut(owner, error);
    }
  }
  return staged;
}

/** Undefined if the owner is gone by now. Throws when its build is damaged. */
async function stageOwner(from: BuildStore, to: BuildStore, owner: HeadOwner) {
  for (let tries = 1; ; tries++) {
    const head = await readHead(from, owner);
    if (head === undefined) return undefined;
    try {
      const build = await readBuild(from, head.build);
      for (const id of await readSources(from, head.build)) await linkBuild(from, to, id);
      await readBuild(to, head.build);
      await mkdir(to.paths.owner(owner), { recursive: true, mode: 0o700 });
      await writeFile(to.paths.head(owner), JSON.stringify({ format: 1, ...head }), { mode: 0o600 });
      return { facts: head.facts, sealed: build.memory !== null };
    } catch (error) {
      const now = await readHead(from, owner);
      if (now?.build === head.build || tries === TRIES) throw error;
    }
  }
}

/** Whole or not at all. */
async function linkBuild(from: BuildStore, to: BuildStore, id: BuildId): Promise<void> {
  const { dir } = to.paths.build(id);
  try {
    await linkFolder(from.paths.build(id).dir, dir);
  } catch (error) {
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
}

/** Links every file of a flat folder; one that was linked before stays as it is. A record may be replaced, so it is copied. */
async function linkFolder(from: string, into: string): Promise<void> {
  const made = await mkdir(into, { recursive: true, mode: 0o700 });
  if (made === undefined) return;
  const names = await readdir(from).catch((error) => {
    if (isMissing(error) && path.basename(from) === 'boot') return [];
    throw error;
  });
  for (const name of names) {
    const take = name === RECORD ? copyFile : link;
    await take(path.join(from, name), path.join(into, name));
  }
}

/** As it is on a host whose VM is gone: one that ran says so. */
async function writeRecordOf(into: string, record: SandboxRecord, running: boolean): Promise<void> {
  const reason = 'it was running when it was backed up; resume goes on from its last build';
  const saved = { ...record, started: false, ...(running && { errorReason: reason }) };
  const { record: file } = new SandboxPaths({ data: into, run: into }, record.id);
  await writeFile(file, JSON.stringify(saved), { mode: 0o600 });
}
