/** A lock between processes: flock(2), held by a child that ends with this process. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { ThawError } from '@thaw/api';

/**
 * Takes the exclusive lock of `file`, which is created if missing; disposing gives it back.
 * Throws `unavailable` when another process keeps it for longer than `timeoutSec`.
 */
export async function lock(file: string, timeoutSec = 30): Promise<AsyncDisposable> {
  // Node has no flock. `cat` runs with the lock and ends when our end of its pipe closes, however we end.
  const holder = spawn('/usr/bin/flock', ['--timeout', String(timeoutSec), file, '/bin/cat'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: {},
  });
  holder.stdin.on('error', () => {});
  const ended = new Promise<void>((resolve) => holder.once('close', () => resolve()));
  const refused = new Promise<never>((_, reject) => {
    const refuse = (cause: unknown) =>
      reject(new ThawError('unavailable', 'another process keeps a lock of this host', { cause }));
    holder.once('error', refuse);
    holder.once('close', (code) => refuse(`flock ${file} ended with ${code}`));
  });
  refused.catch(() => {});
  holder.stdin.write('.');
  await Promise.race([once(holder.stdout, 'data'), refused]);
  return {
    async [Symbol.asyncDispose]() {
      holder.stdin.end();
      await ended;
    },
  };
}
