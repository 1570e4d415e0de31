/** Boot, pause, resume and spawn, until the first command has answered; what a pause costs, beside dumping everything. */
import { execFile } from 'node:child_process';
import fs from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Sandbox } from '@thaw/api';
import type { Thaw } from '@thaw/sdk';
import { type Figure, figure } from './figure.ts';
import { fullDump } from './full-dump.ts';

const TEMPLATE = 'bench';
const BARS = { bootMs: 2500, createMs: 300, spareMs: 60, resumeMs: 250, frozenMs: 100, forkFrozenMs: 40 };
/** Of a size that no spare has. */
const OTHER_SIZE = { memory_mb: 520 } as const;
const FORKS = 3;
const MIB = 2 ** 20;
const run = promisify(execFile);

interface Measured {
  boot: number[];
  create: number[];
  spare: number[];
  resume: number[];
  resumeCall: number[];
  /** Right after a pause: the place for it may still be missing. */
  resumeAtOnce: number[];
  spawn: number[];
  /** Of all forks of one call. */
  forks: number[];
  forkFrozen: number[];
  pauseCall: number[];
  frozen: number[];
  stored: number[];
  rotate: number[];
  dumpMs: number[];
  dumpBytes: number[];
  copy: number[];
}

export interface LifecycleOptions {
  thaw: Thaw;
  /** One that boots at each create. */
  booting: Thaw;
  /** Resolves when a sandbox of the default size will be a spare's. */
  spareReady: () => Promise<void>;
  /** Resolves when VMMs wait for what they are to restore. */
  placesReady: () => Promise<void>;
  rounds: number;
  /** For files of the alternatives; on the disk of Thaw's data. */
  scratch: string;
  /** The root image that sandboxes start from. */
  image: string;
  progress: (text: string) => void;
}

export async function lifecycle(options: LifecycleOptions): Promise<Figure[]> {
  const { thaw, rounds, progress } = options;
  const measured: Measured = {
    boot: [],
    create: [],
    spare: [],
    resume: [],
    resumeCall: [],
    resumeAtOnce: [],
    spawn: [],
    forks: [],
    forkFrozen: [],
    pauseCall: [],
    frozen: [],
    stored: [],
    rotate: [],
    dumpMs: [],
    dumpBytes: [],
    copy: [],
  };
  const source = await thaw.sandboxes.create(OTHER_SIZE);
  await answer(thaw, source);
  await thaw.snapshots.create(source.id, { name: TEMPLATE });
  await thaw.sandboxes.delete(source.id);
  for (let round = 1; round <= rounds; round++) {
    progress(`boot, pause, resume, spawn: round ${round} of ${rounds}`);
    await oneRound(options, measured);
  }
  await thaw.snapshots.delete(TEMPLATE);
  return figures(measured);
}

async function oneRound(options: LifecycleOptions, measured: Measured): Promise<void> {
  const { thaw, booting, spareReady, placesReady, scratch, image } = options;
  const boot = await timed(async () => firstAnswer(booting, await booting.sandboxes.create(OTHER_SIZE)));
  measured.boot.push(boot.ms);
  await dump(booting, boot.result.id, scratch, measured);
  await booting.sandboxes.delete(boot.result.id);
  // Else the next ones are made while others are measured.
  const waiting = async () => {
    await spareReady();
    await placesReady();
  };
  await waiting();
  const spare = await timed(async () => firstAnswer(thaw, await thaw.sandboxes.create()));
  measured.spare.push(spare.ms);
  await thaw.sandboxes.delete(spare.result.id);
  await waiting();
  const create = await timed(async () => firstAnswer(thaw, await thaw.sandboxes.create(OTHER_SIZE)));
  measured.create.push(create.ms);
  const { id } = create.result;
  // The first pause stores what the boot wrote; those after it what has changed since.
  await thaw.sandboxes.pause(id);
  for (const atOnce of [false, false, true]) {
    if (!atOnce) await placesReady();
    const resume = await timed(() => thaw.sandboxes.resume(id));
    const first = await timed(() => firstAnswer(thaw, resume.result));
    if (!atOnce) measured.resumeCall.push(resume.ms);
    (atOnce ? measured.resumeAtOnce : measured.resume).push(resume.ms + first.ms);
    const pause = await timed(() => thaw.sandboxes.pause(id));
    const { build, timings_ms } = pause.result;
    measured.pauseCall.push(pause.ms);
    measured.frozen.push(step(timings_ms, 'frozen'));
    measured.rotate.push(step(timings_ms, 'pause:rotate'));
    measured.stored.push(build!.stored_bytes / MIB);
  }
  const spawn = await timed(async () =>
    firstAnswer(thaw, await thaw.sandboxes.create({ template: TEMPLATE })),
  );
  measured.spawn.push(spawn.ms);
  await forks(thaw, spawn.result, measured);
  await thaw.sandboxes.delete(spawn.result.id);
  await thaw.sandboxes.delete(id);
  measured.copy.push((await timed(() => copyWhole(image, path.join(scratch, 'disk')))).ms);
}

/** Of a sandbox that has changed as little as a command does. */
async function forks(thaw: Thaw, source: Sandbox, measured: Measured): Promise<void> {
  const made = await timed(async () => {
    const forked = await thaw.sandboxes.fork(source.id, { count: FORKS });
    const started = forked.flatMap((one) => ('sandbox' in one ? [one.sandbox] : []));
    await Promise.all(started.map((sandbox) => answer(thaw, sandbox)));
    return started;
  });
  if (made.result.length < FORKS) throw new Error(`${made.result.length} of ${FORKS} forks started`);
  measured.forks.push(made.ms);
  for await (const { verb, timings_ms } of thaw.sandboxes.events(source.id)) {
    if (verb !== 'fork') continue;
    measured.forkFrozen.push(step(timings_ms, 'frozen'));
    break;
  }
  for (const { id } of made.result) await thaw.sandboxes.delete(id);
}

async function dump(thaw: Thaw, id: string, scratch: string, measured: Measured): Promise<void> {
  const { pids, memory_bytes } = await thaw.sandboxes.stats(id);
  const file = path.join(scratch, 'memory');
  const { ms, bytes } = fullDump(pids.vmm!, memory_bytes, file);
  await fs.rm(file);
  measured.dumpMs.push(ms);
  measured.dumpBytes.push(bytes / MIB);
}

/** Everything but holes, to the page cache. */
async function copyWhole(from: string, to: string): Promise<void> {
  await run('/bin/cp', ['--sparse=auto', '--reflink=never', from, to]);
  await fs.rm(to);
}

function figures(measured: Measured): Figure[] {
  const { boot, create, spare, resume, resumeCall, resumeAtOnce, spawn, forks, forkFrozen } = measured;
  const { pauseCall, frozen, stored, rotate, dumpMs, dumpBytes, copy } = measured;
  return [
    figure('boot to first answer', { unit: 'ms', values: boot, bar: BARS.bootMs }),
    figure('create from a base template to first answer (or boot)', {
      unit: 'ms',
      values: create,
      baseline: boot,
      bar: BARS.createMs,
    }),
    figure('create that takes a spare to first answer (or boot)', {
      unit: 'ms',
      values: spare,
      baseline: boot,
      bar: BARS.spareMs,
    }),
    figure('resume to first answer (or boot)', {
      unit: 'ms',
      values: resume,
      baseline: boot,
      bar: BARS.resumeMs,
    }),
    figure('resume call alone', { unit: 'ms', values: resumeCall }),
    figure('resume right after a pause to first answer (or boot)', {
      unit: 'ms',
      values: resumeAtOnce,
      baseline: boot,
    }),
    figure('template spawn to first answer (or boot)', { unit: 'ms', values: spawn, baseline: boot }),
    figure(`${FORKS} forks of one, to the first answer of all (or boot)`, {
      unit: 'ms',
      values: forks,
      baseline: boot,
    }),
    figure('the source of a fork stands still (or full dump + filter)', {
      unit: 'ms',
      values: forkFrozen,
      baseline: dumpMs,
      bar: BARS.forkFrozenMs,
    }),
    figure('frozen by a later idle pause (or full dump + filter)', {
      unit: 'ms',
      values: frozen,
      baseline: dumpMs,
      bar: BARS.frozenMs,
    }),
    figure('pause call alone', { unit: 'ms', values: pauseCall }),
    figure('stored by a later idle pause (or full dump + filter)', {
      unit: 'MiB',
      values: stored,
      baseline: dumpBytes,
    }),
    figure('disk rotation (or copying the disk)', { unit: 'ms', values: rotate, baseline: copy }),
  ];
}

async function firstAnswer(thaw: Thaw, sandbox: Sandbox): Promise<Sandbox> {
  await answer(thaw, sandbox);
  return sandbox;
}

export async function answer(thaw: Thaw, { id }: Sandbox): Promise<void> {
  const { stdout } = await thaw.sandboxes.exec(id, { cmd: 'echo', args: ['hello'] });
  if (stdout !== 'hello\n') throw new Error(`the guest answered ${JSON.stringify(stdout)}`);
}

function step(timings: Record<string, number> | undefined, name: string): number {
  const ms = timings?.[name];
  if (ms === undefined) throw new Error(`the answer has no time for ${name}`);
  return ms;
}

export async function timed<T>(action: () => Promise<T>): Promise<{ ms: number; result: T }> {
  const started = performance.now();
  const result = await action();
  return { ms: performance.now() - started, result };
}
