/** The last step of a sandbox, whoever asked for it. */
import { pruneBuilds } from '../build/table.ts';
import { throughOutage } from '../db/connect.ts';
import type { Plane } from '../plane.ts';
import { moveSandbox, removeSandbox, type SandboxRow } from './table.ts';

/** From `stopping` on. If the host fails the row stays there, and reconcile tries again. */
export async function finishDestroy(plane: Plane, row: SandboxRow): Promise<void> {
  await plane.host.destroy(row.id);
  await throughOutage(async () => {
    // One that never ran is the rest of a failed create: nobody was ever told of it.
    if (row.started_at === null) await removeSandbox(plane.db, row.id, ['stopping']);
    else
      await moveSandbox(plane.db, row.id, ['stopping'], { status: 'stopped', host_ip: null, build_id: null });
    await pruneBuilds(plane.db);
  });
}
