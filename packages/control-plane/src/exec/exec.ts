import { decodeBytes, type Exec, type ExecResult, ThawError, textOf, toBase64 } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { inside } from '../sandbox/enter.ts';

/** Runs a command to its end. It is not tied to the client: one that goes away does not stop it. */
export async function exec(plane: Plane, teamId: string, id: string, wish: Exec): Promise<ExecResult> {
  const started = performance.now();
  const command = {
    sandboxId: id,
    cmd: wish.cmd,
    args: wish.args,
    timeoutSec: wish.timeout_sec,
    cwd: wish.cwd ?? '',
    env: wish.env ?? {},
    user: wish.user ?? '',
    stdin: decodeBytes(wish.stdin ?? '', wish.stdin_encoding),
  };
  const answer = await inside(plane, teamId, id, () => plane.host.exec(command).catch(refuseOutput));
  const stdout = textOf(answer.stdout);
  const stderr = textOf(answer.stderr);
  const text = stdout !== undefined && stderr !== undefined;
  return {
    sandbox_id: id,
    cmd: wish.cmd,
    stdout: text ? stdout : toBase64(answer.stdout),
    stderr: text ? stderr : toBase64(answer.stderr),
    exit_code: answer.exitCode,
    duration_ms: Math.round(performance.now() - started),
    encoding: text ? 'utf-8' : 'base64',
  };
}

/** The host is out of room for what the command says, not for the command. */
function refuseOutput(error: unknown): never {
  if (!(error instanceof ThawError && error.kind === 'exhausted')) throw error;
  throw new ThawError('too_large', 'the output is too large for one answer, use exec/stream', {
    cause: error,
  });
}
