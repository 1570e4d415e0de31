/** What the two daemons hold in memory while something goes on. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { TestThaw } from './harness.ts';

const MIB = 2 ** 20;
const SAMPLE_EVERY_MS = 50;

/** Bytes of anonymous memory: what a process holds, without the files that it maps. */
function held(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
}

/** Runs `work`; neither daemon may come to hold more than `growthMib` above what it had before. */
export async function holdsBounded<T>(thaw: TestThaw, growthMib: number, work: () => Promise<T>): Promise<T> {
  const { agent, plane } = await thaw.agentPids();
  const daemons = { 'host agent': agent, 'control plane': plane };
  const before = Object.values(daemons).map(held);
  const peaks = [...before];
  const timer = setInterval(() => {
    for (const [index, pid] of Object.values(daemons).entries())
      peaks[index] = Math.max(peaks[index] ?? 0, held(pid));
  }, SAMPLE_EVERY_MS);
  let result: T;
  try {
    result = await work();
  } finally {
    clearInterval(timer);
  }
  const now = await thaw.agentPids();
  assert.deepEqual([now.agent, now.plane], [agent, plane], 'a daemon died');
  for (const [index, name] of Object.keys(daemons).entries()) {
    const growth = Math.round(((peaks[index] ?? 0) - (before[index] ?? 0)) / MIB);
    if (process.env.THAW_SHOW_MEMORY) console.error(`${name}: +${growth} MiB`);
    assert.ok(growth <= growthMib, `the ${name} came to hold ${growth} MiB more`);
  }
  return result;
}
