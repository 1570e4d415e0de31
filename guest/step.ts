// A step makes files and a result from its inputs. It is done again only when the hash of its inputs changes.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, existsSync } from 'node:fs';
import { lstat, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface Step<Result> {
  name: string;
  outDir: string;
  /** Everything the result depends on, as JSON. */
  inputs: unknown;
  /** File names below outDir. */
  outputs: readonly string[];
  /** Writes the outputs into workDir, from where they are moved when all is done. */
  build(workDir: string, say: (line: string) => void): Promise<Result>;
}

interface Done<Result> {
  inputsSha256: string;
  result: Result;
}

export const sayStep = (name: string, line: string) => console.log(`guest: ${name}: ${line}`);

export async function runStep<Result>(step: Step<Result>): Promise<Result> {
  const say = (line: string) => sayStep(step.name, line);
  await mkdir(stateDir(step.outDir), { recursive: true });
  await using undo = new AsyncDisposableStack();
  undo.use(await takeTurn(join(stateDir(step.outDir), `${step.name}.lock`)));
  const inputsSha256 = createHash('sha256').update(JSON.stringify(step.inputs)).digest('hex');
  const done = await lastResult<Result>(step.outDir, step.name);
  const present = step.outputs.every((file) => existsSync(join(step.outDir, file)));
  if (done?.inputsSha256 === inputsSha256 && present) {
    say('unchanged');
    return done.result;
  }
  const started = performance.now();
  const workDir = await mkdtemp(join(stateDir(step.outDir), `${step.name}-`));
  undo.defer(() => rm(workDir, { recursive: true, force: true }));
  const result = await step.build(workDir, say);
  for (const output of step.outputs) await replace(join(workDir, output), join(step.outDir, output));
  await replaceFile(stateFile(step.outDir, step.name), JSON.stringify({ inputsSha256, result }));
  say(`built in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  return result;
}

/** Two builds of one folder take turns at each step: the second finds the work of the first. */
async function takeTurn(lockPath: string): Promise<AsyncDisposable> {
  const holder = spawn('flock', [lockPath, 'sh', '-c', 'echo locked; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(holder, 'close');
  await Promise.race([once(holder.stdout, 'data'), ended]);
  return {
    async [Symbol.asyncDispose]() {
      holder.stdin.end();
      await ended;
    },
  };
}

/** What the step last made, if it ever ran in this folder. */
export async function lastResult<Result>(outDir: string, name: string): Promise<Done<Result> | undefined> {
  try {
    return JSON.parse(await readFile(stateFile(outDir, name), 'utf8'));
  } catch {
    return undefined;
  }
}

/** A file is replaced in one go; a folder that is in the way is removed first. */
async function replace(from: string, to: string): Promise<void> {
  if ((await lstat(from)).isDirectory()) await rm(to, { recursive: true, force: true });
  await rename(from, to);
}

export async function replaceFile(path: string, content: string): Promise<void> {
  await writeFile(`${path}.new`, content);
  await rename(`${path}.new`, path);
}

export async function sha256File(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk);
  return hash.digest('hex');
}

const stateDir = (outDir: string) => join(outDir, '.steps');
const stateFile = (outDir: string, name: string) => join(stateDir(outDir), `${name}.json`);
