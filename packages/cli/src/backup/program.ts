/** Runs one of Thaw's own programs to its end, its input and output being files or text. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { ThawError } from '@thaw/api';
import type { User } from '../up/user.ts';

export interface ProgramOptions {
  /** root unless given. */
  user?: User;
  env?: Record<string, string>;
  /** Written to its standard input. */
  input: AsyncIterable<string | Buffer> | Iterable<string | Buffer>;
  /** Takes its standard output; without it that is what is answered. */
  output?: FileHandle;
  signal: AbortSignal;
}

/** Throws `internal` with its last words when it fails. */
export async function runProgram(
  argv: readonly [string, ...string[]],
  { user, env = {}, input, output, signal }: ProgramOptions,
): Promise<string> {
  const [file, ...args] = argv;
  const child = spawn(file, args, {
    cwd: '/',
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', NODE_ENV: 'production', ...env },
    stdio: ['pipe', output?.fd ?? 'pipe', 'pipe'],
    signal,
    ...(user && { uid: user.uid, gid: user.gid }),
  });
  const ended = once(child, 'close') as Promise<[number | null]>;
  const said = text(child.stderr!);
  const printed = child.stdout === null ? Promise.resolve('') : text(child.stdout);
  for (const promise of [ended, said, printed]) promise.catch(() => {});
  // It may end without reading.
  child.stdin!.on('error', () => {});
  for await (const chunk of input) {
    if (child.stdin!.destroyed) break;
    if (!child.stdin!.write(chunk)) await Promise.race([once(child.stdin!, 'drain'), ended]).catch(() => {});
  }
  child.stdin!.end();
  const [code] = await ended.catch((error) => {
    signal.throwIfAborted();
    throw error;
  });
  if (code === 0) return printed;
  const words = (await said)
    .trim()
    .replace(/^control plane: /, '')
    .slice(-2000);
  throw new ThawError('internal', words || `${path.basename(args[0] ?? file)} ended with ${code}`);
}
