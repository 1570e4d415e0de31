/** After an upgrade `thaw up` starts again as the new version: under the same process id, so whoever started it sees no end. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { RENEW_SIGNAL } from './running.ts';

/** Resolves with what ends this round: the signal to stop, or the one to start again. */
export function stopOrRenew(signal: AbortSignal): Promise<'stop' | 'renew'> {
  return new Promise((resolve) => {
    process.once(RENEW_SIGNAL, () => resolve('renew'));
    if (signal.aborted) return resolve('stop');
    signal.addEventListener('abort', () => resolve('stop'), { once: true });
  });
}

/** Becomes the version that is current beside `version`, with the same arguments; listens where it did. */
export function startAgain(version: string, env: NodeJS.ProcessEnv, listen: Record<string, string>): never {
  const current = path.resolve(version, '../../current/bin/thaw');
  const installed = path.basename(path.dirname(version)) === 'versions' && existsSync(current);
  const program = installed ? current : path.join(version, 'bin/thaw');
  // The launcher sets them for the version it belongs to.
  const { THAW_VERSION_DIR: _, NODE_COMPILE_CACHE: __, ...rest } = env;
  const settings = Object.entries({ ...rest, ...listen }).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  if (process.execve === undefined)
    throw new Error('this Node.js can not start another program in its place');
  return process.execve(program, [program, ...process.argv.slice(2)], Object.fromEntries(settings));
}
