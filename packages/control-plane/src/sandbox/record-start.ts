/** What became of a sandbox that a host was to start: its row is `running`, or gone. */
import { type Sandbox, ThawError } from '@thaw/api';
import type { SandboxInfo } from '@thaw/api/rpc';
import { throughOutage } from '../db/connect.ts';
import type { Plane } from '../plane.ts';
import { finishDestroy } from './end.ts';
import { recordHostState, toSandbox } from './sandbox.ts';
import { moveSandbox, type SandboxRow } from './table.ts';

export async function recordStart(
  plane: Plane,
  row: SandboxRow,
  starting: Promise<SandboxInfo>,
): Promise<Sandbox> {
  let info: SandboxInfo;
  try {
    info = await starting;
  } catch (error) {
    await takeBack(plane, row);
    throw error;
  }
  const now = new Date();
  const ran = { started_at: now, last_active_at: now };
  const running = await throughOutage(() => recordHostState(plane, row, ['pending'], info, ran));
  if (!running) throw new ThawError('conflict', `sandbox ${row.id} was changed by someone else`);
  return toSandbox(running, info.timingsMs);
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
