/**
 * Makes sandboxes that go on from where one is now. The host knows them before the source stands still, which it does only
 * while its memory is taken; each then starts, or fails, by itself.
 */
import { randomUUID } from 'node:crypto';
import { SANDBOX_ID, ThawError } from '@thaw/api';
import type { CreateSandboxRequest, ForkSandboxRequest } from '@thaw/api/rpc';
import { holdBuild } from '../build/acquire.ts';
import type { Build } from '../build/build.ts';
import { type Host, newSteps } from '../host.ts';
import { kitFor } from './compatible.ts';
import type { SandboxRecord } from './record.ts';
import type { Sandbox } from './sandbox.ts';
import { sealed } from './sealed.ts';
import { newRecord, type Origin, spawn } from './spawn.ts';

export interface Forked {
  source: Sandbox;
  /** In the order of the wishes. */
  children: PromiseSettledResult<Sandbox>[];
}

export async function fork(host: Host, { sandboxId, children }: ForkSandboxRequest): Promise<Forked> {
  const ids = children.map((child) => child.sandboxId);
  if (ids.length === 0 || ids.some((id) => !SANDBOX_ID.test(id)) || new Set(ids).size < ids.length)
    throw new ThawError('invalid_request', 'not ids of sandboxes');
  const source = host.registry.get(sandboxId);
  const records = children.map((child) => recordOf(source, child));
  // Nobody joins: each fork has children of its own.
  const freezing = source.exclusive('fork', () => freeze(host, source), randomUUID());
  freezing.catch(() => {});
  const spawns = records.map((record) =>
    spawn(host, record, () => freezing.then(({ build }) => originOf(host, build))),
  );
  const settled = await Promise.allSettled(spawns);
  const { hold } = await freezing;
  hold[Symbol.dispose]();
  return { source, children: settled };
}

async function freeze(host: Host, source: Sandbox): Promise<Origin> {
  const steps = newSteps(host);
  try {
    const build = await sealed(host, source, steps);
    return { build, hold: holdBuild(host.builds, build) };
  } finally {
    source.timings = steps.timings();
  }
}

/** A hold of the child's own; the fork's is there until all have one. */
async function originOf(host: Host, build: Build): Promise<Origin> {
  const hold = holdBuild(host.builds, build);
  try {
    await kitFor(host, build.manifest.machine!);
    return { build, hold };
  } catch (error) {
    hold[Symbol.dispose]();
    throw error;
  }
}

/** Of the source's size, open and with the default user as it is; its environment counts where the child has none. */
function recordOf({ record }: Sandbox, child: CreateSandboxRequest): SandboxRecord {
  const { template, counter, defaultUser, defaultWorkdir } = record;
  const open = record.accessToken === '';
  const wish = {
    ...child,
    template,
    env: { ...record.env, ...child.env },
    open,
    defaultUser,
    defaultWorkdir,
  };
  return newRecord(wish, record, counter);
}
