import { networkPolicy, type Sandbox, type SandboxStatus, type UpdateSandbox } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { requireSandbox, toSandbox, wrongState } from './sandbox.ts';
import { findSandbox, moveSandbox, type SandboxPatch, type SandboxRow } from './table.ts';

const CHANGEABLE: readonly SandboxStatus[] = [
  'running',
  'pausing',
  'paused',
  'resuming',
  'snapshotting',
  'error',
];

/**
 * Changes what a sandbox may do and when it ends. A network policy waits for the verb under way, and holds for the
 * guest's packets when this answers; all else is only the row's. `more` is written with it.
 */
export async function updateSandbox(
  plane: Plane,
  teamId: string,
  id: string,
  change: UpdateSandbox,
  more: SandboxPatch = {},
): Promise<Sandbox> {
  const row = await requireSandbox(plane, teamId, id);
  const patch = { ...patchOf(change), ...more };
  if (change.network === undefined) return write(plane, row, patch);
  const key = `update ${JSON.stringify(change)}`;
  return plane.verbs.after(id, key, `sandbox ${id}: its network is being changed`, async () => {
    const now = await requireSandbox(plane, teamId, id);
    if (!CHANGEABLE.includes(now.status)) throw wrongState(now);
    // A paused one gets it with its next start. One that another control plane is at work on gets it from reconcile.
    if (now.status === 'running') await plane.host.setNetwork(id, networkPolicy(change.network!));
    return write(plane, now, patch);
  });
}

function patchOf({ timeout_sec, on_timeout, auto_resume, metadata, network }: UpdateSandbox): SandboxPatch {
  return {
    // The new time counts from now, and it is the only clock.
    ...(timeout_sec !== undefined && {
      timeout_sec,
      end_at: null,
      ttl_sec: null,
      last_active_at: new Date(),
    }),
    ...(on_timeout !== undefined && { on_timeout }),
    ...(auto_resume !== undefined && { auto_resume }),
    ...(metadata !== undefined && { metadata: JSON.stringify(metadata) }),
    ...(network !== undefined && { network: JSON.stringify(networkPolicy(network)) }),
  };
}

async function write(plane: Plane, row: SandboxRow, patch: SandboxPatch): Promise<Sandbox> {
  const changed = await moveSandbox(plane.db, row.id, CHANGEABLE, patch);
  if (changed) {
    const message = `${Object.keys(patch).join(', ')} changed`;
    plane.history.record(row.id, { verb: 'update', outcome: 'done', ms: 0, message });
    return toSandbox(changed);
  }
  throw wrongState((await findSandbox(plane.db, row.team_id, row.id)) ?? row);
}
