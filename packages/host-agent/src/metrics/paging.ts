/** How guests' memory came in, of VMs that run and of those that have ended. */
import type { Memory, MemoryStats } from '../vmm/vmm.ts';
import { pageBytes, pageFaults, pages, untouchedBytes } from './metrics.ts';

interface Paged {
  faults: number;
  byFault: number;
  ahead: number;
  /** Bytes; of a VM that does not know, none. */
  untouched: number;
  zero: number;
  lastBuild: number;
  olderBuilds: number;
}

/** A pager that hangs must not hold up the end of its VM. */
const STATS_WITHIN_MS = 1000;

const ended: Paged = nothing();
const seen = new WeakMap<Memory, Paged>();

/** A VM's memory and the build that it came from; null after a boot. */
export interface Source {
  memory: Memory;
  build: string | null;
}

/** To be called before a VM ends; what cannot be asked any more counts as when it was last seen. It never throws. */
export async function retire(source: Source): Promise<void> {
  await look(source);
  add(ended, seen.get(source.memory) ?? nothing());
  seen.delete(source.memory);
}

/** Brings the counters up to date with what `running` say. */
export async function countPages(running: readonly Source[]): Promise<void> {
  await Promise.all(running.map(look));
  const total = { ...ended };
  for (const { memory } of running) add(total, seen.get(memory) ?? nothing());
  for (const counter of [pageFaults, pages, pageBytes]) counter.reset();
  pageFaults.inc(total.faults);
  pages.inc({ cause: 'fault' }, total.byFault);
  pages.inc({ cause: 'ahead' }, total.ahead);
  untouchedBytes.set(total.untouched);
  pageBytes.inc({ source: 'zero' }, total.zero);
  pageBytes.inc({ source: 'last_build' }, total.lastBuild);
  pageBytes.inc({ source: 'older_builds' }, total.olderBuilds);
}

async function look({ memory, build }: Source): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, STATS_WITHIN_MS, undefined);
  });
  const stats = await Promise.race([memory.stats().catch(() => undefined), late]);
  clearTimeout(timer);
  if (stats !== undefined) seen.set(memory, pagedOf(stats, build));
}

function pagedOf(stats: MemoryStats, build: string | null): Paged {
  const lastBuild = build === null ? 0 : (stats.bytesByBuild[build] ?? 0);
  return {
    faults: stats.faults,
    byFault: stats.pagesFaulted,
    ahead: stats.pagesAhead,
    untouched: stats.untouchedBytes ?? 0,
    zero: stats.bytesZeroed,
    lastBuild,
    olderBuilds: Math.max(0, stats.bytesCopied - lastBuild),
  };
}

function add(to: Paged, more: Paged): void {
  for (const name of Object.keys(to) as (keyof Paged)[]) to[name] += more[name];
}

function nothing(): Paged {
  return { faults: 0, byFault: 0, ahead: 0, untouched: 0, zero: 0, lastBuild: 0, olderBuilds: 0 };
}
