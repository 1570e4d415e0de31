import type { SandboxStatus } from '@thaw/api';
import { SANDBOX_STATUSES } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { finishDestroy } from './end.ts';
import { requireSandbox } from './sandbox.ts';
import { moveSandbox } from './table.ts';

const LIVE: readonly SandboxStatus[] = SANDBOX_STATUSES.filter((status) => status !== 'stopped');

/** Everything of the sandbox goes. It waits for a verb under way; a second destroy of the same id is fine. */
export async function destroySandbox(plane: Plane, teamId: string, id: string): Promise<void> {
  const row = await requireSandbox(plane, teamId, id);
  if (row.status === 'stopped') return;
  await plane.verbs.after(id, 'destroy', `sandbox ${id} is stopping`, async () => {
    const stopping = await moveSandbox(plane.db, id, LIVE, { status: 'stopping', plane: plane.id });
    if (stopping) await finishDestroy(plane, stopping);
  });
}
