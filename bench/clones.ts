/**
 * Ten clones of one template at once, on each memory backend: how much memory each has, and how long it takes to its first
 * answer. Two Thaws take turns, one for each backend.
 */
import { readdir, readFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Sandbox } from '@thaw/api';
import { Thaw } from '@thaw/sdk';
import { ThrowawayThaw } from '../scripts/throwaway/thaw.ts';
import { type Figure, figure, median } from './figure.ts';
import { answer, timed } from './lifecycle.ts';

const CLONES = 10;
const TEMPLATE = 'clones';
const BACKENDS = ['mapped', 'uffd'] as const;
const BAR_OVER_WRITTEN_MIB = 2;
const BAR_OF_CPU = 1.5;
const KIB = 2 ** 10;
const SETTLE_MS = 1000;
/** USER_HZ, in which /proc tells processor time. */
const TICKS_PER_SEC = 100;
/** Words of the pager's state file (crates/pager/src/state.rs): the first region's address and bytes. */
const REGION_AT = 8;

interface Measured {
  /** MiB of each clone: proportional share of the guest's memory, and the VMM's page tables. */
  guest: number[];
  tables: number[];
  /** MiB of it that is the clone's own: anonymous. */
  own: number[];
  /** MiB of everything else that the VMM has mapped. */
  vmm: number[];
  mappings: number[];
  /** ms of each clone. */
  answers: number[];
  /** ms of one alone, and the processor time that its processes and the daemons took meanwhile. */
  alone: number[];
  cpu: number[];
}

interface Side {
  thaw: Thaw;
  /** Of `thaw up`. */
  pid: number;
  measured: Measured;
}

export interface ClonesOptions {
  version: string;
  signal: AbortSignal;
  rounds: number;
  progress: (text: string) => void;
}

export async function clones({ version, signal, rounds, progress }: ClonesOptions): Promise<Figure[]> {
  await using undo = new AsyncDisposableStack();
  const sides = {} as Record<(typeof BACKENDS)[number], Side>;
  const owns: ThrowawayThaw[] = [];
  for (const backend of BACKENDS) {
    const own = undo.use(await ThrowawayThaw.start({ version, signal, env: { THAW_MEMORY: backend } }));
    owns.push(own);
    const thaw = new Thaw({
      url: own.url,
      key: own.key,
      fetch: (url, init) => fetch(url, { ...init, signal }),
    });
    sides[backend] = {
      thaw,
      pid: own.pid,
      measured: nothing(),
    };
    const source = await thaw.sandboxes.create();
    await answer(thaw, source);
    await thaw.snapshots.create(source.id, { name: TEMPLATE });
    await thaw.sandboxes.delete(source.id);
  }
  for (let round = 1; round <= rounds; round++) {
    progress(`${CLONES} clones at once: round ${round} of ${rounds}`);
    for (const backend of round % 2 === 0 ? BACKENDS : BACKENDS.toReversed())
      await oneRound(sides[backend], backend);
  }
  for (const own of owns) await own.stop();
  return figures(sides.mapped.measured, sides.uffd.measured);
}

async function oneRound({ thaw, pid, measured }: Side, backend: string): Promise<void> {
  // Slots that the round before used up are made anew in the background.
  await sleep(SETTLE_MS);
  const before = await cpuMs(await family(pid));
  const alone = await timed(() => start(thaw));
  const { id, backend: has } = alone.result;
  if (has !== backend) throw new Error(`a clone has the backend ${has}, ${backend} was asked for`);
  measured.alone.push(alone.ms);
  const own = Object.values((await thaw.sandboxes.stats(id)).pids);
  measured.cpu.push((await cpuMs(new Set([...(await family(pid)), ...own]))) - before);
  await thaw.sandboxes.delete(id);
  await sleep(SETTLE_MS);
  const started = await Promise.all(Array.from({ length: CLONES }, () => timed(() => start(thaw))));
  measured.answers.push(...started.map(({ ms }) => ms));
  for (const { result } of started) {
    const { pids } = await thaw.sandboxes.stats(result.id);
    await measure(pids.vmm!, path.join(await runFolderOf(pids.vmm!), 'pager.state'), measured);
  }
  await Promise.all(started.map(({ result }) => thaw.sandboxes.delete(result.id)));
}

async function start(thaw: Thaw): Promise<Sandbox> {
  const sandbox = await thaw.sandboxes.create({ template: TEMPLATE });
  await answer(thaw, sandbox);
  return sandbox;
}

/** Of everything that one clone's VMM has mapped. */
async function measure(pid: number, state: string, measured: Measured): Promise<void> {
  const words = await readFile(state);
  const first = words.readBigUInt64LE(REGION_AT * 8);
  const end = first + words.readBigUInt64LE((REGION_AT + 1) * 8);
  const sums = { guest: 0, own: 0, vmm: 0, mappings: 0 };
  let inside = false;
  for (const line of (await readFile(`/proc/${pid}/smaps`, 'utf8')).split('\n')) {
    const address = /^([0-9a-f]+)-[0-9a-f]+ /.exec(line)?.[1];
    if (address !== undefined) {
      const at = BigInt(`0x${address}`);
      inside = at >= first && at < end;
      sums.mappings += 1;
      continue;
    }
    const [, name, kib] = /^(Pss|Anonymous|Swap):\s+(\d+) kB/.exec(line) ?? [];
    if (name === undefined) continue;
    const mib = Number(kib) / KIB;
    if (name === 'Pss') sums[inside ? 'guest' : 'vmm'] += mib;
    else if (inside) sums.own += mib;
  }
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const tables = Number(/^VmPTE:\s+(\d+) kB/m.exec(status)?.[1]) / KIB;
  measured.guest.push(sums.guest + tables);
  measured.tables.push(tables);
  measured.own.push(sums.own);
  measured.vmm.push(sums.vmm);
  measured.mappings.push(sums.mappings);
}

/** Processor time of processes, and of their children that have ended. */
async function cpuMs(pids: Iterable<number>): Promise<number> {
  const times = await Promise.all([...pids].map(async (pid) => (await statOf(pid))?.cpuMs ?? 0));
  return times.reduce((sum, ms) => sum + ms, 0);
}

/** A process and all that descend from it. */
/** Its keeper is told where to run. */
async function runFolderOf(vmm: number): Promise<string> {
  const { parent } = (await statOf(vmm))!;
  return (await readFile(`/proc/${parent}/cmdline`, 'utf8')).split('\0')[1]!;
}

async function family(pid: number): Promise<Set<number>> {
  const all = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const parents = new Map(
    await Promise.all(all.map(async (one) => [one, (await statOf(one))?.parent] as const)),
  );
  const found = new Set([pid]);
  for (let size = 0; size !== found.size; ) {
    size = found.size;
    for (const [one, parent] of parents) if (parent !== undefined && found.has(parent)) found.add(one);
  }
  return found;
}

/** proc_pid_stat(5); undefined if it has ended. */
async function statOf(pid: number): Promise<{ parent: number; cpuMs: number } | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  if (stat === undefined) return undefined;
  const fields = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const ticks = fields.slice(11, 15).reduce((sum, each) => sum + each, 0);
  return { parent: fields[1]!, cpuMs: (ticks / TICKS_PER_SEC) * 1000 };
}

function figures(mapped: Measured, uffd: Measured): Figure[] {
  const of = `one of ${CLONES} clones`;
  const cpu = (BAR_OF_CPU * CLONES * median(mapped.cpu)) / os.availableParallelism();
  return [
    figure(`guest memory of ${of}, with page tables (or uffd)`, {
      unit: 'MiB',
      values: mapped.guest,
      baseline: uffd.guest,
      bar: median(mapped.own) + BAR_OVER_WRITTEN_MIB,
    }),
    figure('of that, written by the guest (or private for uffd)', {
      unit: 'MiB',
      values: mapped.own,
      baseline: uffd.own,
    }),
    figure('of that, page tables (or uffd)', { unit: 'MiB', values: mapped.tables, baseline: uffd.tables }),
    figure(`the VMM of ${of} besides (or uffd)`, { unit: 'MiB', values: mapped.vmm, baseline: uffd.vmm }),
    figure('mappings of that VMM (or uffd)', { unit: '', values: mapped.mappings, baseline: uffd.mappings }),
    figure(`${CLONES} clones at once, to the first answer (or uffd)`, {
      unit: 'ms',
      values: mapped.answers,
      baseline: uffd.answers,
      bar: cpu,
    }),
    figure('one clone alone, to the first answer (or uffd)', {
      unit: 'ms',
      values: mapped.alone,
      baseline: uffd.alone,
    }),
    figure('processor time of that, with the daemons (or uffd)', {
      unit: 'ms',
      values: mapped.cpu,
      baseline: uffd.cpu,
    }),
  ];
}

function nothing(): Measured {
  return { guest: [], tables: [], own: [], vmm: [], mappings: [], answers: [], alone: [], cpu: [] };
}
