/** Connect and pause of the E2B API: the verbs, and what its clients need told differently. */
import { ThawError } from '@thaw/api';
import type { Plane } from '../../plane.ts';
import { type ConnectWish, connectSandbox } from '../../sandbox/connect.ts';
import { pauseSandbox } from '../../sandbox/pause.ts';
import type { SandboxRow } from '../../sandbox/table.ts';
import { untilMoved } from '../../sandbox/until-moved.ts';
import { E2bError } from '../errors.ts';
import { requireListed } from './sandbox.ts';

/** A guest that hung when it was paused and does not come back is told apart: only a boot without its memory helps. */
export async function connect(
  plane: Plane,
  teamId: string,
  id: string,
  wish: ConnectWish,
): Promise<{ row: SandboxRow; resumed: boolean }> {
  try {
    return await connectSandbox(plane, teamId, id, wish);
  } catch (error) {
    if (!wish.memory || !(await hungAtPause(plane, id, error))) throw error;
    throw new E2bError(
      'conflict',
      'sandbox_snapshot_guest_agent_unresponsive',
      `the guest of sandbox ${id} hung when it was paused and does not answer now: connect with "memory": false to boot its disk`,
      { cause: error },
    );
  }
}

async function hungAtPause(plane: Plane, id: string, error: unknown): Promise<boolean> {
  if (!(error instanceof ThawError) || (error.kind !== 'timeout' && error.kind !== 'agent_error'))
    return false;
  const infos = await plane.host.list().catch(() => []);
  return infos.some(({ sandboxId, build }) => sandboxId === id && build?.guestUnresponsive === true);
}

/** These clients read 409 as "it was paused already": whatever else is under way is waited for. */
export async function pause(
  plane: Plane,
  teamId: string,
  id: string,
  how: { memory: boolean; healthy: boolean },
): Promise<void> {
  let row: SandboxRow | undefined = await requireListed(plane, teamId, id);
  while (row?.status === 'resuming' || row?.status === 'snapshotting') row = await untilMoved(plane, row);
  await requireListed(plane, teamId, id);
  await pauseSandbox(plane, teamId, id, { ...how, wait: true });
}
