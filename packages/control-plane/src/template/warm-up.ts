/**
 * What is done in a sandbox before it is frozen, so that all that start from it have it behind them: programs started,
 * code compiled, caches filled.
 */
import { setTimeout } from 'node:timers/promises';
import { ThawError, type WarmUp } from '@thaw/api';
import { exec } from '../exec/exec.ts';
import type { Plane } from '../plane.ts';
import { enter } from '../sandbox/enter.ts';

const ASK_EVERY_MS = 200;

/**
 * Throws, and nothing is to be frozen, when a command fails or the time is over; what was done so far stays done. Neither
 * commands nor what they say are in messages: those go to logs.
 */
export async function warmUp(
  plane: Plane,
  teamId: string,
  id: string,
  { run, ready, timeout_sec }: WarmUp,
): Promise<void> {
  using _ = await enter(plane, teamId, id);
  const endsAt = performance.now() + timeout_sec * 1000;
  const inTime = (command: string, name: string) => exitCode(plane, teamId, id, { command, name, endsAt });
  for (const [index, command] of run.entries()) {
    const name = `command ${index + 1} of the warm-up`;
    const code = await inTime(command, name);
    if (code !== 0) throw new ThawError('invalid_state', `${name} ended with ${code}`);
  }
  while (ready !== undefined && (await inTime(ready, 'the readiness check of the warm-up')) !== 0) {
    await setTimeout(ASK_EVERY_MS);
  }
}

/** Hosts measure a command's time in seconds: one that begins in the last of them may end a little late. */
async function exitCode(
  plane: Plane,
  teamId: string,
  id: string,
  { command, name, endsAt }: { command: string; name: string; endsAt: number },
): Promise<number> {
  const left_ms = endsAt - performance.now();
  const late = `${name} did not succeed in time`;
  if (left_ms <= 0) throw new ThawError('timeout', late);
  const sh = { cmd: 'sh', args: ['-c', command], timeout_sec: Math.ceil(left_ms / 1000) };
  try {
    return (await exec(plane, teamId, id, { ...sh, stdin_encoding: 'utf-8' })).exit_code;
  } catch (error) {
    if (!(error instanceof ThawError && error.kind === 'timeout')) throw error;
    throw new ThawError('timeout', late, { cause: error });
  }
}
