/** A client that wants a sandbox to be there: one that runs may get more time, a paused one is resumed. */
import { ThawError } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { resumeSandbox } from './resume.ts';
import { requireSandbox, wrongState } from './sandbox.ts';
import { moveSandbox, notBefore, type SandboxRow } from './table.ts';
import { untilMoved } from './until-moved.ts';

/** Pauses and resumes that may come between before the caller is told to try again. */
const TRIES = 8;
/** What is given if the client names no time, in seconds. */
const TTL_SEC = 300;

export interface ConnectWish {
  /** Seconds from now on that it is wanted for. */
  ttlSec: number | undefined;
  /** False: a paused one boots its disk. */
  memory: boolean;
}

/**
 * Waits for a verb under way. An absolute end is only ever moved to later. One that ends by being idle counts as used
 * and keeps its clock, unless it is resumed for a time that the client names. Throws `not_found` and `conflict`.
 */
export async function connectSandbox(
  plane: Plane,
  teamId: string,
  id: string,
  { ttlSec, memory }: ConnectWish,
): Promise<{ row: SandboxRow; resumed: boolean }> {
  for (let tried = 0; tried < TRIES; tried++) {
    const row = await requireSandbox(plane, teamId, id);
    switch (row.status) {
      case 'running':
      case 'snapshotting': {
        const now = await stay(plane, row, ttlSec ?? TTL_SEC);
        if (now !== undefined) return { row: now, resumed: false };
        break;
      }
      case 'paused': {
        const resumed = await resumeFor(plane, row, { ttlSec, memory });
        if (resumed !== undefined) return { row: resumed, resumed: true };
        break;
      }
      case 'pausing':
      case 'resuming':
        await untilMoved(plane, row);
        break;
      case 'stopping':
        throw new ThawError('conflict', `sandbox ${id} is being destroyed`);
      case 'pending':
      case 'stopped':
      case 'error':
        throw new ThawError('not_found', `sandbox ${id} does not exist`);
    }
  }
  throw new ThawError('conflict', `sandbox ${id} is paused and resumed again and again`);
}

/** Undefined if it has left that status meanwhile. */
async function stay(plane: Plane, row: SandboxRow, ttlSec: number): Promise<SandboxRow | undefined> {
  plane.activity.touch(row.id);
  if (row.end_at === null) return row;
  return moveSandbox(plane.db, row.id, ['running', 'snapshotting'], { end_at: notBefore(inSec(ttlSec)) });
}

async function resumeFor(
  plane: Plane,
  row: SandboxRow,
  { ttlSec, memory }: ConnectWish,
): Promise<SandboxRow | undefined> {
  const ttl = ttlSec ?? (row.end_at === null ? undefined : TTL_SEC);
  try {
    const done = await resumeSandbox(plane, row.team_id, row.id, { memory, ttlSec: ttl }, ['paused']);
    // It may have been somebody else's resume, for a shorter time.
    return await stay(plane, done.row, ttl ?? TTL_SEC);
  } catch (error) {
    if (!(error instanceof ThawError && error.kind === 'invalid_state')) throw error;
    await plane.verbs.idle(row.id);
    const now = await requireSandbox(plane, row.team_id, row.id);
    // Nobody was quicker: it is refused for another reason.
    if (now.revision === row.revision) throw wrongState(now);
    return undefined;
  }
}

export function inSec(sec: number): Date {
  return new Date(Date.now() + sec * 1000);
}
