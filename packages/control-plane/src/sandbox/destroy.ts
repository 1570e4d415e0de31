import type { SandboxStatus } from '@thaw/api';
import { SANDBOX_STATUSES } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { finishDestroy } from './end.ts';
import { requireSandbox } from './sandbox.ts';
import { moveSandbox, type SandboxRow } from './table.ts';

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

/** At the end of its time: not if it changed since `row` was read, nor if it is used again. True if it was destroyed. */
export function destroyExpired(
  plane: Plane,
  row: SandboxRow,
  still: () => boolean = () => true,
): Promise<boolean> {
  const { id } = row;
  return plane.verbs.run(id, 'expire', `sandbox ${id} is stopping`, async () => {
    if (!still()) return false;
    const patch = { status: 'stopping', plane: plane.id } as const;
    const stopping = await moveSandbox(plane.db, id, [row.status], patch, row.revision);
    if (stopping) await finishDestroy(plane, stopping);
    return stopping !== undefined;
  });
}
