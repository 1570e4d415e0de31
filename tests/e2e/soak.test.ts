/**
 * Many creates and destroys, pauses and resumes: neither daemon grows, and nothing stays on the host.
 * `THAW_SOAK=full` runs all the rounds, `THAW_RESULTS` names a file for the measurements.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { assertNothingStray } from './builds.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { fullTraces } from './places.ts';
import { saveResults, table } from './results.ts';
import { descriptors, openFiles, type Traces } from './traces.ts';

await ownHost(import.meta.filename);

const SLOTS = 2;
const FULL = process.env.THAW_SOAK === 'full';
const ROUNDS = FULL ? { create: 200, pause: 100 } : { create: 8, pause: 8 };
/** Before the first that counts: caches fill, and code is compiled. */
const WARM_UP = FULL ? 0 : 8;
/** How much a daemon may grow from a quarter of the rounds to their end. */
const GROWTH_BYTES = 24 * 2 ** 20;
/** Calls that happen to run side by side leave connections that are kept; a leak would be of every round. */
const MORE_CONNECTIONS = 2;
const DAEMONS = ['agent', 'plane'] as const;

interface Size {
  rssBytes: number;
  threads: number;
  descriptors: number;
}

describe('a Thaw that runs for long', () => {
  let thaw: TestThaw;
  let idle: Traces;
  const rows: (string | number)[][] = [];
  before(async () => {
    thaw = await startThaw({ env: { THAW_SLOT_POOL: String(SLOTS), THAW_BUILD_GRACE_SEC: '1' } });
    idle = await fullTraces(thaw, SLOTS);
  });
  after(async () => {
    const columns = ['rounds of', 'daemon', 'round', 'RSS (MiB)', 'threads', 'descriptors'];
    await saveResults('Many rounds', {}, table(columns, rows));
    await thaw?.stop();
  });

  async function sizes(): Promise<Record<(typeof DAEMONS)[number], Size>> {
    const pids = await thaw.agentPids();
    const sizeOf = async (pid: number): Promise<Size> => {
      const status = await readFile(`/proc/${pid}/status`, 'utf8');
      const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
      return {
        rssBytes: field('VmRSS') * 1024,
        threads: field('Threads'),
        descriptors: await descriptors(pid),
      };
    };
    return { agent: await sizeOf(pids.agent), plane: await sizeOf(pids.plane) };
  }

  /** Runs the rounds, and compares the daemons at their end with a quarter of the way. */
  async function repeat(what: string, rounds: number, round: () => Promise<void>): Promise<void> {
    const pids = await thaw.agentPids();
    const quarter = Math.ceil(rounds / 4);
    for (let n = 0; n < WARM_UP; n++) await round();
    const early = await sizes();
    for (let n = 1; n <= rounds; n++) {
      await round();
      const now = await sizes();
      for (const daemon of DAEMONS) {
        const { rssBytes, threads, descriptors } = now[daemon];
        if (n % quarter === 0 || n === rounds)
          rows.push([what, daemon, n, (rssBytes / 2 ** 20).toFixed(1), threads, descriptors]);
        if (n > quarter) continue;
        const was = early[daemon];
        was.rssBytes = rssBytes;
        was.threads = Math.max(was.threads, threads);
        was.descriptors = Math.max(was.descriptors, descriptors);
      }
    }
    assert.deepEqual(await thaw.agentPids(), pids, 'a daemon was started again');
    // Calls under way, idle connections and what waits for its collection come and go; what leaks stays.
    await eventually(async () => {
      const now = await sizes();
      for (const daemon of DAEMONS) {
        const { rssBytes, threads, descriptors } = now[daemon];
        const was = early[daemon];
        const open = await openFiles(pids[daemon]);
        const message = `${daemon}: ${JSON.stringify({ was, now: now[daemon], open })}`;
        assert.ok(rssBytes <= was.rssBytes + GROWTH_BYTES, message);
        assert.ok(threads <= was.threads, message);
        assert.ok(descriptors <= was.descriptors + MORE_CONNECTIONS, message);
      }
    });
  }

  async function assertIdle(): Promise<void> {
    assert.deepEqual(await thaw.settledTraces((now) => isDeepStrictEqual(now, idle)), idle);
    await eventually(() => assertNothingStray(thaw));
  }

  it(`does not grow by ${ROUNDS.create} creates and destroys`, async () => {
    const { id } = await thaw.sdk.sandboxes.create();
    await thaw.sdk.snapshots.create(id, { name: 'ready' });
    await thaw.sdk.sandboxes.delete(id);
    let n = 0;
    await repeat('create and destroy', ROUNDS.create, async () => {
      // Every eighth boots.
      const template = n++ % 8 === 7 ? 'minimal' : 'ready';
      const sandbox = await thaw.sdk.sandboxes.create({ template });
      assert.equal(await thaw.sh(sandbox, 'echo here'), 'here\n');
      await thaw.sdk.sandboxes.delete(sandbox.id);
    });
    await assertIdle();
  });

  it(`does not grow by ${ROUNDS.pause} pauses and resumes`, async () => {
    const { id } = await thaw.sdk.sandboxes.create({ template: 'ready' });
    let n = 0;
    await thaw.sh(id, 'echo 0 | tee /root/n > /dev/shm/n');
    await repeat('pause and resume', ROUNDS.pause, async () => {
      await thaw.sdk.sandboxes.pause(id);
      await thaw.sdk.sandboxes.resume(id);
      assert.equal(await thaw.sh(id, 'cat /root/n /dev/shm/n'), `${n}\n${n}\n`);
      n++;
      await thaw.sh(id, `echo ${n} | tee /root/n > /dev/shm/n; sync`);
    });
    await thaw.sdk.sandboxes.delete(id);
    await assertIdle();
  });
});
