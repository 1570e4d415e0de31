import { spawn } from 'node:child_process';
import type { User } from './user.ts';

/** Runs a program to its end as `user`; `output` is all it printed. Rejects only if it can not be started. */
export function run(
  { uid, gid }: User,
  [file, ...args]: readonly [string, ...string[]],
  { env, input }: { env: Record<string, string>; input: string },
): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { uid, gid, cwd: '/', env, stdio: 'pipe' });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        output += chunk;
      });
    }
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, output }));
    // It may end without reading.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}
