import { DEADLINE_MS } from '../host/agent.ts';
import type { Plane } from '../plane.ts';
import { findSandbox, type SandboxRow } from './table.ts';

/** A verb of another control plane, or of before a restart, is not heard of but by its row. */
const LOOK_EVERY_MS = 200;

/**
 * Waits until the verb that moves the sandbox is over, whoever runs it. Answers the row then; undefined if it is gone.
 * After the longest time that a verb may take it answers the row as it is.
 */
export async function untilMoved(
  plane: Plane,
  row: Pick<SandboxRow, 'id' | 'team_id' | 'status'>,
): Promise<SandboxRow | undefined> {
  const giveUpAt = performance.now() + Math.max(...Object.values(DEADLINE_MS));
  for (;;) {
    await plane.verbs.idle(row.id);
    const now = await findSandbox(plane.db, row.team_id, row.id);
    if (now?.status !== row.status || performance.now() > giveUpAt) return now;
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}
