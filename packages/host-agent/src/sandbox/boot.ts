/**
 * Base templates that have booted: what a guest is before it has an identity, one build for each size, from which the
 * next create is restored. A cache: what is wrong or of another time is forgotten, and the next create boots.
 *
 *   create ─► boot ─► agent answers ─► rehearse ─► seal, go on ─► head of the boot ─► identity        (once)
 *   create ─► restore ─► identity                                                                     (from then on)
 */
import { createHash } from 'node:crypto';
import { stat, utimes } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import { isBuildId } from '@thaw/snapshot';
import { z } from 'zod';
import { type Acquired, acquireHead } from '../build/acquire.ts';
import type { Build } from '../build/build.ts';
import { type Facts, listHeads, readHead, removeHead } from '../build/head.ts';
import type { HeadOwner } from '../build/paths.ts';
import { releaseBuild } from '../build/release.ts';
import { type Host, newSteps } from '../host.ts';
import type { Steps } from '../os/step.ts';
import type { Machine } from './machine.ts';
import type { SandboxRecord } from './record.ts';
import { sealBelow } from './sealed.ts';

const BOOT_TIMEOUT_MS = 30_000;
const REHEARSAL_TIMEOUT_MS = 10_000;

const schema = z.object({
  template: z.string(),
  /** The base template's build that booted. */
  image: z.string().refine(isBuildId),
  vcpus: z.number(),
  memoryMb: z.number(),
  diskMb: z.number(),
});

type BootFacts = z.infer<typeof schema>;

/** What a new sandbox of a base template starts from. */
export interface BootOrigin {
  build: Build;
  hold: Disposable;
  /** Called when the guest is about to get its identity: it is kept as it is then. Throws only if the VM is lost. */
  keep?: (steps: Steps, machine: Machine, lost: AbortSignal) => Promise<void>;
  /** To be called when a VM that was restored did not start. */
  forget?: () => Promise<void>;
}

/** Boots being made: who wants the same one waits for it once. */
export class Boots {
  readonly #making = new Map<string, Promise<void>>();

  making(id: string): Promise<void> | undefined {
    return this.#making.get(id);
  }

  /** Until it is disposed. */
  make(id: string): Disposable {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#making.set(id, promise);
    return {
      [Symbol.dispose]: () => {
        if (this.#making.get(id) === promise) this.#making.delete(id);
        resolve();
      },
    };
  }
}

/** `base`: the template's build, with a hold that becomes the origin's. */
export async function bootOrigin(
  host: Host,
  { build, hold }: Pick<Acquired, 'build' | 'hold'>,
  record: SandboxRecord,
): Promise<BootOrigin> {
  if (host.config.keptBoots === 0) return { build, hold };
  const { template, vcpus, memoryMb, diskMb } = record;
  const facts = { template, image: build.id, vcpus, memoryMb, diskMb };
  const owner = ownerOf(host, facts);
  using held = new DisposableStack();
  held.use(hold);
  let kept = await find(host, owner);
  const making = host.boots.making(owner.id);
  if (kept === undefined && making !== undefined) {
    await making;
    kept = await find(host, owner);
    // Whatever kept that one from being kept: here it is only booted.
    if (kept === undefined) return { build, hold: held.move() };
  }
  if (kept !== undefined) {
    held.use(kept.hold);
    return { build: kept.build, hold: held.move(), forget: () => forget(host, newSteps(host), owner) };
  }
  const turn = held.use(host.boots.make(owner.id));
  const keep: BootOrigin['keep'] = async (steps, machine, lost) => {
    using _ = turn;
    await keepBoot(host, steps, { record, machine, owner, facts }, lost);
  };
  return { build, hold: held.move(), keep };
}

/** Forgets what no create would use any more: of another kernel, image, agent or VMM than this host has now. */
export async function sweepBoots(host: Host): Promise<void> {
  for (const { owner, head } of await listHeads(host.builds, 'boot')) {
    const facts = head instanceof Error ? undefined : schema.safeParse(head.facts).data;
    if (facts !== undefined && ownerOf(host, facts).id === owner.id) {
      const template = { kind: 'template', id: facts.template } as const;
      const current = await readHead(host.builds, template).catch(() => undefined);
      if (current?.build === facts.image && host.config.keptBoots > 0) continue;
    }
    host.log.info({ boot: owner.id }, 'a kept boot is of another time');
    await forget(host, newSteps(host), owner);
  }
}

/** Everything that a boot depends on. */
function ownerOf(host: Host, facts: BootFacts): HeadOwner {
  const { kernelSha, initramfsSha } = host.boot;
  const { image, vcpus, memoryMb, diskMb } = facts;
  const all = [image, vcpus, memoryMb, diskMb, kernelSha, initramfsSha, host.preloadSha, host.vmm.info];
  return { kind: 'boot', id: createHash('sha256').update(JSON.stringify(all)).digest('hex').slice(0, 32) };
}

async function find(host: Host, owner: HeadOwner): Promise<Acquired | undefined> {
  try {
    const acquired = await acquireHead(host.builds, owner);
    const now = new Date();
    await utimes(host.builds.paths.head(owner), now, now).catch(() => {});
    return acquired;
  } catch (error) {
    if (error instanceof ThawError && error.kind === 'not_found') return undefined;
    host.log.error({ boot: owner.id, err: error }, 'a kept boot is damaged');
    await forget(host, newSteps(host), owner);
    return undefined;
  }
}

/** `record`, `machine`: of the sandbox that booted. */
interface Booted {
  record: SandboxRecord;
  machine: Machine;
  owner: HeadOwner;
  facts: BootFacts;
}

async function keepBoot(
  host: Host,
  steps: Steps,
  { record, machine, owner, facts }: Booted,
  lost: AbortSignal,
): Promise<void> {
  const { hostAddress } = machine.slot;
  if ((await host.guests.prepare(hostAddress, BOOT_TIMEOUT_MS, lost)) !== 'frozen') return;
  try {
    // A first command has its files in memory then, in this sandbox and in all that come from here.
    await steps
      .run('boot:rehearse', () => host.guests.rehearse(hostAddress, REHEARSAL_TIMEOUT_MS, lost))
      .catch((error) => host.log.warn({ boot: owner.id, err: error }, 'a boot was kept without a rehearsal'));
    const head = { owner, facts: facts satisfies Facts };
    const drop = () => removeHead(host.builds, steps, 'boot', owner);
    await sealBelow(host, steps, record, machine, { verb: 'boot', head }, drop);
    await makeRoom(host, steps, owner);
  } catch (error) {
    lost.throwIfAborted();
    host.log.warn({ boot: owner.id, err: error }, 'a boot was not kept');
  }
}

/** Forgets those that were not used for longest. */
async function makeRoom(host: Host, steps: Steps, latest: HeadOwner): Promise<void> {
  const others: { owner: HeadOwner; usedMs: number }[] = [];
  for (const { owner, head } of await listHeads(host.builds, 'boot')) {
    if (head instanceof Error) await forget(host, steps, owner);
    if (owner.id === latest.id || head instanceof Error) continue;
    const { mtimeMs } = await stat(host.builds.paths.head(owner));
    others.push({ owner, usedMs: mtimeMs });
  }
  others.sort((a, b) => b.usedMs - a.usedMs);
  for (const { owner } of others.slice(host.config.keptBoots - 1)) await forget(host, steps, owner);
}

async function forget(host: Host, steps: Steps, owner: HeadOwner): Promise<void> {
  const head = await readHead(host.builds, owner).catch(() => undefined);
  await removeHead(host.builds, steps, 'boot', owner);
  if (head !== undefined) await releaseBuild(host.builds, steps, 'boot', head.build);
}
