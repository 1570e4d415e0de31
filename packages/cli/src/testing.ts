/** For tests: the `thaw` command against a control plane. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { text } from 'node:stream/consumers';

const MAIN = path.join(import.meta.dirname, 'main.ts');

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs it to its end. */
export async function thaw(plane: { url: string }, key: string, args: string[]): Promise<Ended> {
  const env = { PATH: process.env.PATH!, THAW_URL: plane.url, THAW_API_KEY: key };
  const child = spawn(process.execPath, [MAIN, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  return { code: child.exitCode, stdout: stdout.trim(), stderr };
}

/** What it prints; it must succeed. */
export async function done(plane: { url: string }, key: string, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await thaw(plane, key, args);
  assert.equal(code, 0, stderr);
  return stdout;
}
