/**
 * `make demo`: the main job on a real VM, each step with its time and its proof. It uses only the CLI and the REST
 * API of an installed Thaw, and what the kernel says about its processes.
 *
 *   demo.ts VERSION_DIR
 */
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { COUNTER, DemoSandbox, memoryOf, processorMs, type SandboxView, unbroken } from './demo/sandbox.ts';
import { Disproved, mebibytes, Show, seconds } from './demo/show.ts';
import { ThrowawayThaw } from './throwaway/thaw.ts';

const MEMORY_MB = 512;
const BALLAST_MB = 16;
const PAUSE_MS = 3000;
const TEMPLATE = 'demo';
/** How far clocks may be apart. */
const CLOCK_MS = 1000;

const show = new Show(process.stdout);
const interrupted = new AbortController();
const { signal } = interrupted;

interface Demo {
  thaw: ThrowawayThaw;
  sandbox: DemoSandbox;
  /** Of the file in the guest's memory. */
  sum: string;
}

async function create(thaw: ThrowawayThaw): Promise<Demo> {
  return show.step(`create: a VM with ${MEMORY_MB} MiB boots`, async (tell) => {
    const started = performance.now();
    const sandbox = await DemoSandbox.create(thaw, { template: 'minimal', memory_mb: MEMORY_MB });
    const kernel = await sandbox.exec('uname', '-sr');
    const answeredMs = performance.now() - started;
    tell.note(`POST /v1/sandboxes, then exec uname -sr`);
    tell.prove(kernel.startsWith('Linux'), `${kernel} answers ${seconds(answeredMs)} after the request`);
    const { vmm, isolation } = await sandbox.view();
    tell.note(`sandbox ${sandbox.id}: ${vmm}, isolation: ${isolation}`);
    return { thaw, sandbox, sum: '' };
  });
}

async function work(demo: Demo): Promise<void> {
  const { thaw, sandbox } = demo;
  await show.step('a program runs, a file is written', async (tell) => {
    tell.note(`thaw sandbox cp - ${sandbox.id}:/root/counter.sh`);
    await thaw.cli(['sandbox', 'cp', '-', `${sandbox.id}:/root/counter.sh`], COUNTER);
    await sandbox.sh('setsid bash /root/counter.sh < /dev/null > /dev/null 2>&1 &');
    tell.note(`thaw sandbox exec ${sandbox.id} bash -c 'echo … > /root/note'`);
    const write = `echo written before the pause > /root/note; head -c ${BALLAST_MB}M /dev/urandom > /dev/shm/ballast`;
    await thaw.cli(['sandbox', 'exec', sandbox.id, 'bash', '-c', write]);
    demo.sum = await sandbox.sh('sha256sum < /dev/shm/ballast');
    await until(async () => (await sandbox.ticks()).length >= 5);
    const ticks = await sandbox.ticks();
    tell.prove(unbroken(ticks), `a counter in the guest is at ${ticks.length}, ten a second`);
    tell.prove(demo.sum.length >= 64, `${BALLAST_MB} MiB of random bytes lie in the guest's memory`);
  });
}

/** Resolves with the times around the pause: the counter must not count between them. */
async function pause({ thaw, sandbox }: Demo): Promise<number> {
  return show.step('pause: all of its memory and processor time is given back', async (tell) => {
    const before = await sandbox.stats();
    const pids = Object.values(before.pids);
    const names = Object.keys(before.pids).join(', ');
    const held = await memoryOf(pids);
    const busy = await processorMs(pids);
    tell.note(
      `before: ${pids.length} processes (${names}) hold ${mebibytes(held)}, have used ${seconds(busy)}`,
    );
    tell.prove(held > 0 && pids.every(isRunning), 'they run on this machine');
    tell.note(`thaw sandbox pause ${sandbox.id}`);
    const started = performance.now();
    const paused: SandboxView = JSON.parse(await thaw.cli(['sandbox', 'pause', '--json', sandbox.id]));
    const pausedAt = Date.now();
    const tookMs = performance.now() - started;
    tell.prove(
      paused.status === 'paused',
      `it is ${paused.status} after ${seconds(tookMs)}${frozen(paused)}`,
    );
    tell.prove(!pids.some(isRunning), `all ${pids.length} processes are gone, they hold 0 MiB`);
    tell.note(`on disk: ${mebibytes(paused.build?.stored_bytes ?? 0)}`);
    await sleep(PAUSE_MS, undefined, { signal });
    return pausedAt;
  });
}

async function resume({ sandbox, sum }: Demo, pausedAt: number): Promise<void> {
  await show.step('resume: memory comes back page by page, when it is touched', async (tell) => {
    const resumedAt = Date.now();
    const started = performance.now();
    const resumed = await sandbox.resume();
    const calledMs = performance.now() - started;
    const hostname = await sandbox.exec('hostname');
    const answeredMs = performance.now() - started;
    tell.note(`POST /v1/sandboxes/${sandbox.id}/resume, then exec hostname`);
    tell.prove(
      hostname === sandbox.id,
      `the first answer comes after ${seconds(answeredMs)} (resume itself ${seconds(calledMs)})`,
    );
    const first = await sandbox.stats();
    const { pages_faulted, pages_total, faults } = first;
    tell.note(`backend: ${resumed.backend}; ${faults} page faults so far`);
    tell.prove(
      pages_faulted > 0 && pages_faulted < pages_total / 2,
      `${pages_faulted} of ${pages_total} pages were brought in, the others are still on disk`,
    );
    const offMs = await sandbox.clockOffMs();
    tell.prove(offMs < CLOCK_MS, `the guest's clock is within ${Math.ceil(offMs)} ms of ours`);
    tell.prove((await sandbox.sh('cat /root/note')) === 'written before the pause', 'the file is there');
    await proveCounting(sandbox, pausedAt, resumedAt, tell);
    tell.prove(
      (await sandbox.sh('sha256sum < /dev/shm/ballast')) === sum,
      `the ${BALLAST_MB} MiB are the same`,
    );
    const more = (await sandbox.stats()).pages_faulted - pages_faulted;
    tell.prove(more > 0, `reading them brought in ${more} more pages`);
  });
}

/** The counter goes on where it was, and did not count in between. */
async function proveCounting(
  sandbox: DemoSandbox,
  pausedAt: number,
  resumedAt: number,
  tell: { prove(holds: boolean, text: string): void },
): Promise<void> {
  await until(async () => ((await sandbox.ticks()).at(-1)?.atMs ?? 0) > resumedAt + 500);
  const ticks = await sandbox.ticks();
  const middle = (pausedAt + resumedAt) / 2;
  const last = ticks.findLast(({ atMs }) => atMs < middle);
  const next = ticks.find(({ atMs }) => atMs >= middle);
  tell.prove(
    unbroken(ticks) && last !== undefined && next !== undefined,
    `the counter goes on: ${last?.count} before, ${next?.count} after, no count lost or doubled`,
  );
  const gapMs = (next?.atMs ?? 0) - (last?.atMs ?? 0);
  // Both clocks may be off a little.
  tell.prove(
    gapMs > resumedAt - pausedAt - CLOCK_MS,
    `it did not run while paused: ${seconds(gapMs)} lie between`,
  );
}

async function snapshot({ thaw, sandbox }: Demo): Promise<void> {
  await show.step('snapshot: the running VM becomes a template', async (tell) => {
    tell.note(`thaw snapshot create ${sandbox.id} ${TEMPLATE}`);
    await thaw.cli(['snapshot', 'create', sandbox.id, TEMPLATE]);
    const before = (await sandbox.ticks()).length;
    const listed = await thaw.cli(['snapshot', 'ls', '--type', 'snapshot']);
    tell.prove(listed.includes(TEMPLATE), `the template ${TEMPLATE} is listed`);
    await until(async () => (await sandbox.ticks()).length > before);
    tell.prove(unbroken(await sandbox.ticks()), 'its source runs on, and its counter with it');
  });
}

async function spawn({ thaw, sandbox, sum }: Demo): Promise<void> {
  await show.step('spawn: two new VMs start inside the same moment', async (tell) => {
    const spawns: DemoSandbox[] = [];
    for (let i = 0; i < 2; i++) {
      const started = performance.now();
      const made = await DemoSandbox.create(thaw, { template: TEMPLATE });
      const hostname = await made.exec('hostname');
      const text = `${made.id}: first answer after ${seconds(performance.now() - started)}`;
      tell.prove(hostname === made.id, `${text}, it knows its own name`);
      spawns.push(made);
    }
    const [a, b] = spawns as [DemoSandbox, DemoSandbox];
    const random = 'head -c 16 /dev/urandom | od -An -tx1 | tr -d " \\n"';
    const [ofA, ofB] = [await a.sh(random), await b.sh(random)];
    tell.prove(ofA.length === 32 && ofA !== ofB, `they read different random bytes: ${ofA} ${ofB}`);
    for (const each of [a, b]) {
      const before = (await each.ticks()).length;
      await until(async () => (await each.ticks()).length > before + 2);
      const ticks = await each.ticks();
      tell.prove(unbroken(ticks), `the counter goes on in ${each.id}: ${ticks.length}`);
    }
    await a.sh('echo a > /root/mine; echo a > /dev/shm/mine');
    await b.sh('echo b > /root/mine; echo b > /dev/shm/mine');
    const read = 'cat /root/mine /dev/shm/mine';
    tell.prove(
      (await a.sh(read)) === 'a\na' && (await b.sh(read)) === 'b\nb',
      'what one writes, to disk and to memory, the other does not see',
    );
    const absent = await sandbox.sh('ls /root/mine /dev/shm/mine 2> /dev/null | wc -l');
    tell.prove(absent === '0', 'nor does their source');
    tell.prove(
      (await b.sh('sha256sum < /dev/shm/ballast')) === sum,
      'memory of the source is there in a spawn',
    );
  });
}

async function pauseAgain({ sandbox }: Demo): Promise<void> {
  await show.step('pause again: only what has changed is stored', async (tell) => {
    const started = performance.now();
    const paused = await sandbox.pause();
    const stored = paused.build?.stored_bytes ?? 0;
    tell.note(
      `generation ${paused.build?.generation}, ${seconds(performance.now() - started)}${frozen(paused)}`,
    );
    const share = `${((100 * stored) / (MEMORY_MB * 2 ** 20)).toFixed(1)} %`;
    tell.prove(
      stored > 0 && stored < (MEMORY_MB * 2 ** 20) / 2,
      `stored: ${mebibytes(stored)}, ${share} of its memory`,
    );
  });
}

async function destroy({ thaw }: Demo): Promise<void> {
  await show.step('destroy all, stop: nothing is left', async (tell) => {
    const named = (await thaw.leftovers()).length;
    const all = await thaw.api<SandboxView[]>('GET', '/v1/sandboxes');
    tell.note(`thaw sandbox rm …, thaw snapshot rm ${TEMPLATE}, Ctrl-C for thaw up`);
    await thaw.cli(['sandbox', 'rm', ...all.map(({ id }) => id)]);
    await thaw.cli(['snapshot', 'rm', TEMPLATE]);
    await thaw.stop();
    const left = await thaw.leftovers();
    tell.prove(
      named > 0 && left.length === 0,
      left.length === 0
        ? `${named} processes, mounts, namespaces, interfaces, rules before: now none`
        : `nothing should be left, but: ${left.join(', ')}`,
    );
  });
}

function frozen({ timings_ms = {} }: SandboxView): string {
  const ms = Object.entries(timings_ms).find(([name]) => /(^|:)frozen$/.test(name))?.[1];
  return ms === undefined ? '' : `; the VM stood still for ${Math.round(ms)} ms of it`;
}

function isRunning(pid: number): boolean {
  return existsSync(`/proc/${pid}/exe`);
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Disproved('the counter should go on, but it does not');
    await sleep(200, undefined, { signal });
  }
}

async function main(version: string): Promise<void> {
  show.head('Thaw: a virtual machine is paused, resumed, frozen into a template, and spawned twice');
  show.rule();
  await using undo = new AsyncDisposableStack();
  const thaw = await show.step('thaw up: on this machine, with data of its own', async (tell) => {
    const started = undo.use(await ThrowawayThaw.start({ version, signal }));
    tell.note(`PostgreSQL, host agent and control plane; the API is at ${started.url}`);
    return started;
  });
  const demo = await create(thaw);
  await work(demo);
  const pausedAt = await pause(demo);
  await resume(demo, pausedAt);
  await snapshot(demo);
  await spawn(demo);
  await pauseAgain(demo);
  await destroy(demo);
}

const started = performance.now();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    if (!signal.aborted) process.stderr.write('\ninterrupted: cleaning up\n');
    interrupted.abort(new Error('interrupted; nothing is left'));
  });
}
const version = process.argv[2];
if (version === undefined || !existsSync(`${version}/bin/thaw`)) {
  process.stderr.write('usage: demo.ts VERSION_DIR (the last line of scripts/setup.sh)\n');
  process.exit(2);
}
try {
  await main(version);
  show.line();
  show.rule();
  show.head(`Everything held. ${seconds(performance.now() - started)} in all.`);
} catch (error) {
  if (signal.aborted) show.fail((signal.reason as Error).message);
  else if (error instanceof Disproved) show.fail(`This should hold and does not: ${error.message}`);
  else show.fail(error instanceof Error ? error.message : String(error));
  process.exitCode = signal.aborted ? 130 : 1;
}
process.exit();
