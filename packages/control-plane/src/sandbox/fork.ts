/**
 * New sandboxes that go on from where one is now, each under an identity of its own. All rows are there before the host is
 * asked; each follows what became of its sandbox, and what did not start leaves none.
 */
import { type Fork, type ForkSandbox, isErrorKind, newSandboxId, ThawError, told } from '@thaw/api';
import type { ForkedSandbox, SandboxInfo } from '@thaw/api/rpc';
import { admit, type Owner } from '../auth/quota.ts';
import { toNetwork } from '../host/agent.ts';
import { noteTarget } from '../http/request.ts';
import type { Plane } from '../plane.ts';
import { recordStart } from './record-start.ts';
import { type Done, requireSandbox, toSandbox, wrongState } from './sandbox.ts';
import { insertSandbox, type SandboxRow } from './table.ts';
import { newToken } from './token.ts';
import { transition } from './transition.ts';

/** What became of each, as `/v1` tells it. */
export async function forkSandbox(
  plane: Plane,
  owner: Owner,
  id: string,
  wish: ForkSandbox,
): Promise<Fork[]> {
  return (await fork(plane, owner, id, wish)).map(toFork);
}

/**
 * With `ttlSec` each ends so many seconds after its start, whatever it does; without, as its source does. Throws when the
 * source can't be frozen, or the quotas do not allow as many; then there is none of them.
 */
export async function fork(
  plane: Plane,
  owner: Owner,
  id: string,
  wish: ForkSandbox & { ttlSec?: number },
): Promise<PromiseSettledResult<Done>[]> {
  const source = await requireSandbox(plane, owner.teamId, id);
  if (source.status !== 'running' && source.status !== 'paused') throw wrongState(source);
  const rows = await insertChildren(plane, owner, source, wish);
  const forking = plane.verbs.run(id, `fork ${rows[0]!.id}`, `sandbox ${id} is being forked`, () =>
    forkOnHost(plane, source, rows, wish.env ?? {}),
  );
  const forks = rows.map((row, index) =>
    plane.verbs.run(row.id, 'create', `sandbox ${row.id} is pending`, () =>
      recordStart(
        plane,
        row,
        forking.then((children) => startedOf(children[index])),
      ),
    ),
  );
  const settled = await Promise.allSettled(forks);
  await forking;
  return settled;
}

async function insertChildren(
  plane: Plane,
  owner: Owner,
  source: SandboxRow,
  { count, metadata, ttlSec }: ForkSandbox & { ttlSec?: number },
): Promise<SandboxRow[]> {
  const ids = Array.from({ length: count }, newSandboxId);
  const { template_id, template, vcpus, memory_mb, disk_mb } = source;
  const { on_timeout, auto_resume, network, pause_memory, alias, ingress, allow_internet } = source;
  const { timeout_sec, ttl_sec } = ttlSec === undefined ? source : { timeout_sec: 0, ttl_sec: ttlSec };
  const rows = await admit(plane.db, owner, async (db) => {
    const inserted: SandboxRow[] = [];
    for (const id of ids) {
      noteTarget(id);
      const row = await insertSandbox(db, {
        ...{ id, team_id: owner.teamId, key_id: owner.keyId, plane: plane.id, host_id: source.host_id },
        ...{ template_id, template, vcpus, memory_mb, disk_mb, timeout_sec, on_timeout, auto_resume },
        ...{ status: 'pending', ttl_sec, pause_memory, alias, allow_internet },
        ingress: JSON.stringify(ingress),
        traffic_token: source.traffic_token && newToken(),
        network: JSON.stringify(network),
        metadata: JSON.stringify(metadata ?? source.metadata),
      });
      inserted.push(row);
    }
    return inserted;
  });
  return rows!;
}

async function forkOnHost(
  plane: Plane,
  source: SandboxRow,
  rows: readonly SandboxRow[],
  env: Record<string, string>,
): Promise<ForkedSandbox[]> {
  const children = rows.map(({ id, network }) => ({ sandboxId: id, env, network: toNetwork(network) }));
  const done = await transition(plane, source, {
    from: ['running', 'paused'],
    through: 'snapshotting',
    act: async () => {
      const { info, children: forked } = await plane.host.fork(source.id, children);
      return { info, value: forked };
    },
  });
  return done.value;
}

function startedOf(forked: ForkedSandbox | undefined): SandboxInfo {
  if (forked?.sandbox !== undefined) return forked.sandbox;
  if (forked === undefined || !isErrorKind(forked.errorKind))
    throw new ThawError('agent_error', 'the host gave an incomplete answer');
  throw new ThawError(forked.errorKind, forked.errorMessage);
}

function toFork(settled: PromiseSettledResult<Done>): Fork {
  if (settled.status === 'fulfilled') return { sandbox: toSandbox(settled.value.row, settled.value.timings) };
  return { error: told(settled.reason) };
}
