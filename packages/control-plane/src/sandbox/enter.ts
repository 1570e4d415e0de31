/** How commands and files get into a sandbox: a paused one is woken for them if it may be. */
import { ThawError } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { wake } from './resume.ts';
import { requireSandbox, wrongState } from './sandbox.ts';
import type { SandboxRow } from './table.ts';
import { untilMoved } from './until-moved.ts';

/** Pauses and resumes that may come between before the caller is told to try again. */
const TRIES = 8;

/**
 * Resolves when the sandbox can be reached. Its idle clock stands still until what this answers is disposed of.
 * However many wait for a paused one, it is resumed once.
 */
export async function enter(plane: Plane, teamId: string, id: string): Promise<Disposable> {
  const row = await requireSandbox(plane, teamId, id);
  const use = plane.activity.during(id);
  try {
    await awaken(plane, row);
    return use;
  } catch (error) {
    use[Symbol.dispose]();
    throw error;
  }
}

async function awaken(plane: Plane, first: SandboxRow): Promise<void> {
  let row = first;
  for (let tried = 0; tried < TRIES; tried++) {
    if (isReachable(row)) return;
    if (!canWake(row)) throw wrongState(row);
    if (row.status === 'paused') {
      try {
        await wake(plane, row);
      } catch (error) {
        // Someone else was quicker; what came of it is seen below.
        if (!(error instanceof ThawError && error.kind === 'invalid_state')) throw error;
      }
    } else {
      await untilMoved(plane, row);
    }
    row = await requireSandbox(plane, row.team_id, row.id);
  }
  throw new ThawError('conflict', `sandbox ${row.id} is paused and resumed again and again`);
}

/**
 * Runs a call that the host either refuses whole or begins. One that is refused because the sandbox began to pause at
 * that very moment is made again.
 */
export async function inside<T>(
  plane: Plane,
  teamId: string,
  id: string,
  call: () => Promise<T>,
): Promise<T> {
  using _ = await enter(plane, teamId, id);
  try {
    return await call();
  } catch (error) {
    if (!(error instanceof ThawError && error.kind === 'invalid_state')) throw error;
    await awaken(plane, await requireSandbox(plane, teamId, id));
    return await call();
  }
}

/** Throws what `enter` would throw now; wakes nothing. */
export async function checkEnter(plane: Plane, teamId: string, id: string): Promise<void> {
  const row = await requireSandbox(plane, teamId, id);
  if (!isReachable(row) && !canWake(row)) throw wrongState(row);
}

/** A snapshot interrupts nobody. */
function isReachable({ status }: SandboxRow): boolean {
  return status === 'running' || status === 'snapshotting';
}

/** A boot that lost all that ran is nothing to be done unasked. */
function canWake({ status, auto_resume, pause_mode }: SandboxRow): boolean {
  if (!auto_resume || pause_mode === 'filesystem') return false;
  return status === 'paused' || status === 'pausing' || status === 'resuming';
}
