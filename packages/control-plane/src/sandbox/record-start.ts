/** What became of a sandbox that a host was to start: its row is `running`, or gone. */
import { ThawError } from '@thaw/api';
import type { SandboxInfo } from '@thaw/api/rpc';
import { throughOutage } from '../db/connect.ts';
import type { Plane } from '../plane.ts';
import { finishDestroy } from './end.ts';
import { type Done, recordHostState } from './sandbox.ts';
import { moveSandbox, type SandboxRow } from './table.ts';

export async function recordStart(
  plane: Plane,
  row: SandboxRow,
  starting: Promise<SandboxInfo>,
): Promise<Done> {
  let info: SandboxInfo;
  try {
    info = await starting;
  } catch (error) {
    await takeBack(plane, row);
    throw error;
  }
  const now = new Date();
  const endAt = row.ttl_sec === null ? null : new Date(now.getTime() + row.ttl_sec * 1000);
  const ran = { started_at: now, last_active_at: now, end_at: endAt };
  const running = await throughOutage(() => recordHostState(plane, row, ['pending'], info, ran));
  if (!running) throw new ThawError('conflict', `sandbox ${row.id} was changed by someone else`);
  return { row: running, timings: info.timingsMs };
}

/** Also after a timeout: what the host may still have made must not outlive the answer. */
async function takeBack(plane: Plane, row: SandboxRow): Promise<void> {
  try {
    const stopping = await throughOutage(() =>
      moveSandbox(plane.db, row.id, ['pending'], { status: 'stopping' }),
    );
    if (stopping) await finishDestroy(plane, stopping);
  } catch (cause) {
    plane.log.warn({ err: cause, sandbox: row.id }, 'the rest of a failed create is left to reconcile');
  }
}
