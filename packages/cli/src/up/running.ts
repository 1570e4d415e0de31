/** What `thaw up` tells of itself while it runs, and how another command finds and ends it. */
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ThawError } from '@thaw/api';
import { z } from 'zod';

const schema = z.object({
  pid: z.number().int().positive(),
  /** Field 22 of /proc/PID/stat: a process id alone is used again. */
  startTime: z.string(),
  /** The folder of the version that runs. */
  version: z.string(),
  /** Empty until it serves. */
  url: z.string(),
});

export type Running = z.infer<typeof schema>;

/** Ends `thaw up`, which then starts as the version that is current. */
export const RENEW_SIGNAL = 'SIGUSR2';

const ASK_EVERY_MS = 100;

/** Tells of this process until disposed: from its start on, and where it serves once it does. */
export async function announceRunning(run: string, version: string): Promise<Announcement> {
  const file = runningFile(run);
  const startTime = (await startTimeOf(process.pid)) ?? '';
  const write = async (url: string) => {
    const self: Running = { pid: process.pid, startTime, version, url };
    await writeFile(`${file}.new`, JSON.stringify(self), { mode: 0o644 });
    await rename(`${file}.new`, file);
  };
  await write('');
  return { serving: write, [Symbol.asyncDispose]: () => rm(file, { force: true }) };
}

export interface Announcement extends AsyncDisposable {
  serving(url: string): Promise<void>;
}

/** The `thaw up` that runs on this run folder; undefined without one. */
export async function findRunning(run: string): Promise<Running | undefined> {
  const text = await readFile(runningFile(run), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  let found: Running;
  try {
    found = schema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
  return (await startTimeOf(found.pid)) === found.startTime ? found : undefined;
}

/** Stops `thaw up` and waits for its end; sandboxes go on. */
export async function stopRunning(running: Running, timeoutMs: number): Promise<void> {
  process.kill(running.pid, 'SIGTERM');
  await until(
    async () => (await startTimeOf(running.pid)) !== running.startTime,
    timeoutMs,
    'Thaw does not stop',
  );
}

/** Lets `thaw up` start again as `version`, under the same process id, and waits until that serves. */
export async function renewRunning(
  run: string,
  running: Running,
  version: string,
  timeoutMs: number,
): Promise<void> {
  process.kill(running.pid, RENEW_SIGNAL);
  await until(
    async () => {
      if ((await startTimeOf(running.pid)) !== running.startTime)
        throw new ThawError(
          'unavailable',
          'Thaw ended while it started as the new version: see what it printed',
        );
      const now = await findRunning(run);
      return now?.version === version && now.url !== '';
    },
    timeoutMs,
    'Thaw does not start as the new version',
  );
}

async function until(holds: () => Promise<boolean>, timeoutMs: number, otherwise: string): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new ThawError('timeout', otherwise);
    await sleep(ASK_EVERY_MS);
  }
}

function runningFile(run: string): string {
  return path.join(run, 'up.json');
}

/** Undefined when there is no such process; a zombie has ended too. */
async function startTimeOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => undefined);
  if (stat === undefined) return undefined;
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
}
