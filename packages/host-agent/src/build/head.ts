/** Heads: small files that say which build a sandbox or template stands on. They are the references to builds. */
import { access, mkdir, readdir, readFile, rename, rm, rmdir } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import { type BuildId, isBuildId } from '@thaw/snapshot';
import { z } from 'zod';
import type { Steps } from '../os/step.ts';
import { damaged, isMissing } from './damaged.ts';
import { type HeadOwner, isOwnerId } from './paths.ts';
import type { BuildStore } from './store.ts';
import { syncDirectory, writeDurably } from './sync.ts';

const schema = z.strictObject({
  format: z.literal(1),
  build: z.string().refine(isBuildId, 'not the id of a build'),
  /** What the owner needs besides the build, as its verbs define it. */
  facts: z.record(z.string(), z.json()),
});

export type Facts = z.infer<typeof schema>['facts'];

export interface Head {
  readonly build: BuildId;
  readonly facts: Facts;
}

/** Undefined if there is none. Throws `internal` for one that can't be read. */
export async function readHead(store: BuildStore, owner: HeadOwner): Promise<Head | undefined> {
  try {
    const { build, facts } = schema.parse(JSON.parse(await readFile(store.paths.head(owner), 'utf8')));
    return { build, facts };
  } catch (cause) {
    if (cause instanceof ThawError) throw cause;
    if (isMissing(cause)) return undefined;
    throw new ThawError('internal', `the head of ${owner.kind} ${owner.id} is damaged`, { cause });
  }
}

/**
 * Points the owner at a sealed build, durably: after this the build is what a resume or a spawn starts from. When it
 * throws, the head names the old build as before; only where the disk refuses that too, the new one: both are whole.
 * Returns the head that was replaced.
 */
export async function commitHead(
  store: BuildStore,
  steps: Steps,
  verb: string,
  owner: HeadOwner,
  head: Head,
): Promise<Head | undefined> {
  const file = store.paths.head(owner);
  const fresh = `${file}.new`;
  return await store.exclusive(async () => {
    const before = await readHead(store, owner);
    let wasPending = false;
    try {
      await steps.run(`${verb}:write-head`, async () => {
        await access(store.paths.build(head.build).manifest).catch((cause) => {
          throw damaged(head.build, 'it is not on this host', cause);
        });
        await makeOwner(store, owner);
        await rm(fresh, { force: true });
        await writeDurably(fresh, JSON.stringify(schema.parse({ format: 1, ...head })));
      });
      await steps.run(`${verb}:commit-head`, async () => {
        wasPending = store.pending.delete(head.build);
        await rename(fresh, file);
      });
      await steps.run(`${verb}:fsync-head`, () => syncDirectory(path.dirname(file)));
    } catch (error) {
      const restored = await steps
        .run(`${verb}:restore-head`, () => restoreHead(store, owner, before))
        .then(
          () => true,
          () => false,
        );
      // What an unsynced head may still name must not be removed.
      if (wasPending && restored) store.pending.add(head.build);
      throw error;
    }
    return before;
  });
}

/** The way back of a commit that failed: its caller goes on as if there had been none. */
async function restoreHead(store: BuildStore, owner: HeadOwner, before: Head | undefined): Promise<void> {
  const file = store.paths.head(owner);
  const fresh = `${file}.new`;
  const directory = path.dirname(file);
  await rm(fresh, { force: true });
  const now = await readHead(store, owner);
  if (JSON.stringify(now) !== JSON.stringify(before)) {
    if (before === undefined) {
      await rm(file);
    } else {
      await writeDurably(fresh, JSON.stringify({ format: 1, ...before }));
      await rename(fresh, file);
    }
    await syncDirectory(directory);
  }
  if (before === undefined && owner.kind !== 'sandbox') await rmdir(directory).catch(ignoreMissing);
}

/** Removes the head, and the folder with it where nothing else is in it; what it named stays until `releaseBuild`. */
export async function removeHead(
  store: BuildStore,
  steps: Steps,
  verb: string,
  owner: HeadOwner,
): Promise<void> {
  const file = store.paths.head(owner);
  const directory = store.paths.owner(owner);
  await store.exclusive(async () => {
    // Should the rest of this verb fail, nobody could tell any more which build it was.
    const head = await readHead(store, owner).catch(() => undefined);
    await steps.run(`${verb}:remove-head`, async () => {
      if (head !== undefined) store.unreleased.add(head.build);
      for (const name of [file, `${file}.new`]) await rm(name, { force: true });
      await syncDirectory(directory).catch(ignoreMissing);
      if (owner.kind !== 'sandbox') {
        await rmdir(directory).catch(ignoreMissing);
        await syncDirectory(path.dirname(directory));
      }
    });
  });
}

/** Every owner of that kind that has a head, with the head or why it can't be read. */
export async function listHeads(
  store: BuildStore,
  kind: HeadOwner['kind'],
): Promise<{ owner: HeadOwner; head: Head | Error }[]> {
  return (await readOwners(store, kind)).flatMap(({ owner, head }) =>
    head === undefined ? [] : { owner, head },
  );
}

async function readOwners(
  store: BuildStore,
  kind: HeadOwner['kind'],
): Promise<{ owner: HeadOwner; head: Head | Error | undefined }[]> {
  const found: { owner: HeadOwner; head: Head | Error | undefined }[] = [];
  for (const id of await readdir(store.paths.owners(kind))) {
    if (!isOwnerId(id)) continue;
    const owner = { kind, id };
    found.push({ owner, head: await readHead(store, owner).catch((error: Error) => error) });
  }
  return found;
}

/** Removes folders of templates and boots that have no head: it was not committed when its writer died. Answers their ids. */
export async function sweepHeadless(store: BuildStore): Promise<string[]> {
  const swept: string[] = [];
  for (const kind of ['template', 'boot'] as const) {
    for (const { owner, head } of await readOwners(store, kind)) {
      if (head !== undefined) continue;
      await rm(store.paths.owner(owner), { recursive: true, force: true });
      swept.push(owner.id);
    }
  }
  return swept;
}

/** A new folder's own name must be durable too, or the head in it is lost with it. */
async function makeOwner(store: BuildStore, owner: HeadOwner): Promise<void> {
  const directory = store.paths.owner(owner);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await syncDirectory(path.dirname(directory));
}

function ignoreMissing(error: unknown): void {
  if (!isMissing(error)) throw error;
}
