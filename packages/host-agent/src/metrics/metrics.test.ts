import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Steps } from '../os/step.ts';
import type { Memory, MemoryStats } from '../vmm/vmm.ts';
import { observeSeal, observeStep, registry } from './metrics.ts';
import { countPages, retire } from './paging.ts';

async function sample(name: string, labels: Record<string, string> = {}): Promise<number> {
  for (const line of (await registry.metrics()).split('\n')) {
    const rest = line.startsWith(`${name} `) || line.startsWith(`${name}{`);
    if (rest && Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`)))
      return Number(line.slice(line.lastIndexOf(' ') + 1));
  }
  return 0;
}

const STATS: MemoryStats = {
  faults: 3,
  pagesFaulted: 20,
  pagesAhead: 5,
  untouchedBytes: 8192,
  bytesCopied: 81_920,
  bytesZeroed: 16_384,
  bytesByBuild: { young: 61_440, old: 20_480 },
  latencyUs: { p50: 1, p90: 1, p99: 1, max: 1, buckets: [] },
  removedPages: 0,
  readFrozenBytes: 0,
  tracker: 'scan',
  residentBytes: 0,
};

const memoryOf = (stats: () => Promise<MemoryStats>) => ({ stats }) as unknown as Memory;

describe('figures of the host', () => {
  it('counts each step once, under its verb, and failures apart', async () => {
    const steps = new Steps(undefined, observeStep);
    await steps.run('pause:dump', async () => {});
    await assert.rejects(steps.run('pause:dump', () => Promise.reject(new Error('no'))));
    steps.note('frozen', 7);
    const labels = { verb: 'pause', step: 'dump' };
    assert.equal(await sample('thaw_step_ms_count', labels), 2);
    assert.equal(await sample('thaw_step_failures_total', labels), 1);
    assert.equal(await sample('thaw_step_ms_sum', { verb: 'seal', step: 'frozen' }), 7);
  });

  it('counts what seals found changed', async () => {
    observeSeal({ storedBytes: 8192, zeroBytes: 4096 }, { storedBytes: 100, zeroBytes: 0 });
    observeSeal({ storedBytes: 4096, zeroBytes: 0 }, { storedBytes: 0, zeroBytes: 0 });
    assert.equal(await sample('thaw_dirty_bytes_total', { image: 'memory', kind: 'stored' }), 12_288);
    assert.equal(await sample('thaw_dirty_bytes_total', { image: 'memory', kind: 'zero' }), 4096);
    assert.equal(await sample('thaw_dirty_bytes_total', { image: 'disk', kind: 'stored' }), 100);
  });

  it('keeps the pages of VMs that have ended, also of one that does not answer any more', async () => {
    const first = { memory: memoryOf(async () => STATS), build: 'young' };
    await countPages([first]);
    assert.equal(await sample('thaw_page_faults_total'), 3);
    assert.equal(await sample('thaw_pages_total', { cause: 'fault' }), 20);
    assert.equal(await sample('thaw_pages_total', { cause: 'ahead' }), 5);
    assert.equal(await sample('thaw_page_bytes_untouched'), 8192);
    assert.equal(await sample('thaw_page_bytes_total', { source: 'zero' }), 16_384);
    assert.equal(await sample('thaw_page_bytes_total', { source: 'last_build' }), 61_440);
    assert.equal(await sample('thaw_page_bytes_total', { source: 'older_builds' }), 20_480);

    let alive = true;
    const second = {
      memory: memoryOf(() => (alive ? Promise.resolve(STATS) : Promise.reject(new Error('gone')))),
      build: null,
    };
    await countPages([first, second]);
    assert.equal(await sample('thaw_page_faults_total'), 6);
    alive = false;
    await Promise.all([retire(first), retire(second)]);
    await countPages([]);
    assert.equal(await sample('thaw_page_faults_total'), 6);
    const silent = { memory: memoryOf(() => new Promise(() => {})), build: null };
    await retire(silent);
    assert.equal(await sample('thaw_page_faults_total'), 6);
  });
});
