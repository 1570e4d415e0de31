/**
 * kill -9 of the host agent, the control plane, a VM and each process beside it, at the labelled steps of the verbs.
 * Afterwards nothing is leaked, and the sandbox runs, or is paused with all it had, or is an error that goes on from
 * its last seal, memory and disk of one instant.
 *
 * `THAW_CRASH_POINTS`: how many points, chosen by THAW_TEST_SEED, or `all`. `THAW_RESULTS`: a file for the outcome.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import type { SandboxStatus } from '@thaw/api';
import { assertNothingStray } from './builds.ts';
import { howOf, type Point, pointsOf, VERBS, type Verb } from './crash-points.ts';
import { allSteps, FAULTS, faultHappened, missedSteps, OF_A_SPARE, setFault } from './faults.ts';
import { type Daemons, eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { fullTraces } from './places.ts';
import { Outcomes } from './results.ts';
import { sample } from './sample.ts';
import type { Traces } from './traces.ts';

await ownHost(import.meta.filename);

const SLOTS = 2;
const TEMPLATE = 'ready';
const FROZEN = 'frozen';
const SETTLED: readonly SandboxStatus[] = ['running', 'paused', 'error'];
const seed = process.env.THAW_TEST_SEED ?? 'c3';
const wanted = process.env.THAW_CRASH_POINTS ?? '10';
/** `2/3` is the second third of the points: several runs side by side take all of them. */
const [part = 1, parts = 1] = (process.env.THAW_CRASH_PART ?? '1/1').split('/').map(Number);

describe(`kill -9 at a step (seed ${seed})`, () => {
  let thaw: TestThaw;
  let idle: Traces;
  let running: Traces;
  /** The sandbox that dies and comes back, and what was last written to its memory and disk. */
  let id = '';
  let mark = 0;
  const outcomes = new Outcomes('kill -9 at every step', seed);
  const points: Point[] = [];

  before(async () => {
    thaw = await startThaw({
      env: {
        ...FAULTS,
        THAW_SLOT_POOL: String(SLOTS),
        THAW_RECONCILE_MS: '300',
        THAW_BUILD_GRACE_SEC: '1',
      },
    });
    idle = await fullTraces(thaw, SLOTS);
    id = (await thaw.sdk.sandboxes.create()).id;
    await write();
    await thaw.sdk.snapshots.create(id, { name: TEMPLATE });
    await thaw.sdk.snapshots.create(id, { name: FROZEN });
    await thaw.sdk.sandboxes.delete(id);
    points.push(...(await allPoints()));
    running = await fullTraces(thaw, SLOTS, 1);
  });
  after(async () => {
    await outcomes.save(points.length);
    await thaw?.stop();
  });

  const spawn = () => thaw.sdk.sandboxes.create({ template: TEMPLATE });
  const act = {
    create: async () => void (await spawn()),
    destroy: () => thaw.sdk.sandboxes.delete(id),
    resume: async () => void (await thaw.sdk.sandboxes.resume(id)),
    pause: async () => void (await thaw.sdk.sandboxes.pause(id)),
    snapshot: async () => void (await thaw.sdk.snapshots.create(id, { name: FROZEN, overwrite: true })),
  } satisfies Record<Verb, () => Promise<void>>;

  /** Goes through the verbs once: their answers tell the steps, those of a destroy are known by its name. */
  async function allPoints(): Promise<Point[]> {
    const steps = (answer: { timings_ms?: Record<string, number> | undefined }) =>
      Object.keys(answer.timings_ms ?? {}).filter((label) => label.includes(':'));
    const created = await spawn();
    id = created.id;
    await thaw.sdk.snapshots.create(id, { name: FROZEN, overwrite: true });
    const snapshot = steps(await thaw.sdk.snapshots.create(id, { name: FROZEN, overwrite: true }));
    const pause = steps(await thaw.sdk.sandboxes.pause(id));
    const resume = steps(await thaw.sdk.sandboxes.resume(id));
    const destroy = [...(await allSteps())].filter((step) => step.startsWith('destroy:'));
    const labels: Record<Verb, string[]> = {
      create: [...steps(created), 'network:open-egress'],
      destroy: [...destroy, 'destroy:remove-head', 'destroy:unname-builds', 'destroy:remove-builds'],
      resume,
      pause,
      snapshot,
    };
    return VERBS.flatMap((verb) => pointsOf(verb, [...new Set(labels[verb])]));
  }

  async function write(): Promise<void> {
    mark++;
    await thaw.sh(id, `echo ${mark} | tee /root/mark > /dev/shm/mark; sync`);
  }

  /** What was written last; memory and disk are of one instant. */
  async function read(from = id): Promise<number> {
    const [disk, memory] = (await thaw.sh(from, 'cat /root/mark /dev/shm/mark')).split('\n').map(Number);
    assert.equal(memory, disk, 'memory and disk are of one instant');
    return memory!;
  }

  /** The daemons that were killed are back, and Thaw answers. */
  async function serves(before: Daemons, victim: Point['victim']): Promise<void> {
    await eventually(async () => {
      if (victim === 'agent' || victim === 'plane') {
        const now = await thaw.agentPids();
        assert.ok(now[victim] !== 0 && now[victim] !== before[victim], `${victim} is not back`);
      }
      await thaw.sdk.ready();
      await Array.fromAsync(thaw.sdk.sandboxes.list());
    }, 60_000);
  }

  async function settled(): Promise<SandboxStatus> {
    return await eventually(async () => {
      const { status } = await thaw.sdk.sandboxes.get(id);
      assert.ok(SETTLED.includes(status), `it is ${status}`);
      return status;
    }, 60_000);
  }

  async function assertTraces(expected: Traces, message: string): Promise<void> {
    const same = (found: Traces) => isDeepStrictEqual(found, expected);
    assert.deepEqual(await thaw.settledTraces(same, 20_000), expected, message);
    await eventually(() => assertNothingStray(thaw, message), 20_000);
  }

  /** The state that the verb starts from; `sealed` is what the last seal holds. */
  async function stand(verb: Verb): Promise<{ sealed: number }> {
    const live = await Array.fromAsync(thaw.sdk.sandboxes.list());
    if (verb === 'create') {
      await thaw.destroyAll();
      await assertTraces(idle, 'before a create');
      return { sealed: mark };
    }
    if (live.length === 0) {
      id = (await spawn()).id;
      mark = Math.max(mark, await read());
    }
    const sealed = await read();
    if (verb === 'destroy') return { sealed };
    await write();
    if (verb === 'resume') await thaw.sdk.sandboxes.pause(id);
    return { sealed };
  }

  async function die(point: Point): Promise<string> {
    const { verb, label, victim } = point;
    const { sealed } = await stand(verb);
    const daemons = await thaw.agentPids();
    await setFault(thaw, label, howOf(victim));
    const answer = await act[verb]().then(
      () => 'done',
      (error: Error) => error.message,
    );
    await eventually(async () => assert.ok(await faultHappened(thaw), `not reached: ${answer}`));
    await serves(daemons, victim);
    if (verb === 'destroy') return await gone(answer);
    if (verb === 'create') return await created(answer);
    // A row may still say that a VM runs which has just died.
    let status = await settled();
    const found = await eventually(async () => {
      const now = await settled();
      if (now === 'running') return await read();
      status = now;
      await assertTraces(idle, `${status}`);
      await thaw.sdk.sandboxes.resume(id);
      return await read();
    }, 60_000);
    // A resume had only what was sealed; a pause that came to its end has sealed all there was.
    const allowed = verb === 'resume' || status !== 'error' ? [mark] : [mark, sealed];
    assert.ok(allowed.includes(found), `${status}: ${found} is none of ${allowed}; answer: ${answer}`);
    if (verb === 'snapshot') await assertTemplate();
    await write();
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    assert.equal(await read(), mark, 'after the next pause');
    await assertTraces(running, 'at the end');
    if (status !== 'error') return status;
    return found === mark ? 'error, nothing lost' : 'error, back to the last seal';
  }

  async function gone(answer: string): Promise<string> {
    await eventually(async () => {
      const { status } = await thaw.sdk.sandboxes.get(id);
      assert.equal(status, 'stopped', answer);
    }, 60_000);
    await assertTraces(idle, answer);
    return 'destroyed';
  }

  /** Whoever was told of a sandbox has one; else there is none. */
  async function created(answer: string): Promise<string> {
    const live = await eventually(async () => {
      const found = await Array.fromAsync(thaw.sdk.sandboxes.list());
      assert.ok(found.length === 0 || answer === 'done', answer);
      assert.ok(found.every(({ status }) => SETTLED.includes(status)));
      return found;
    }, 60_000);
    for (const sandbox of live) {
      await eventually(async () => {
        const { status } = await thaw.sdk.sandboxes.get(sandbox.id);
        if (status !== 'running') await thaw.sdk.sandboxes.resume(sandbox.id);
        await read(sandbox.id);
      }, 60_000);
      await thaw.sdk.sandboxes.delete(sandbox.id);
    }
    await assertTraces(idle, answer);
    return live.length === 0 ? 'nothing is left' : 'it goes on';
  }

  /** The template that the snapshot was to replace is the old one or the new one, and whole. */
  async function assertTemplate(): Promise<void> {
    const spawned = await thaw.sdk.sandboxes.create({ template: FROZEN });
    await read(spawned.id);
    await thaw.sdk.sandboxes.delete(spawned.id);
  }

  it('loses and leaks nothing', async (context) => {
    const all =
      wanted === 'all'
        ? points
        : sample(points, Number(wanted), seed, ({ label, victim }) => `${label}/${victim}`);
    const chosen = all.filter((_, index) => index % parts === part - 1);
    for (const point of chosen) {
      await context.test(`${point.label}: ${point.victim}`, async () => {
        const outcome = await die(point).catch(async (error: unknown) => {
          outcomes.add(point.verb, point.victim, 'FAILED');
          // The next point starts anew.
          await setFault(thaw, []);
          await eventually(() => thaw.destroyAll(), 60_000).catch(() => {});
          throw error;
        });
        outcomes.add(point.verb, point.victim, outcome);
      });
    }
  });

  it('leaves out no step that the sources have', async () => {
    const known = new Set(points.map(({ label }) => label));
    const verbs = /^(create|destroy|resume|pause|snapshot|template):/;
    const own = [...(await allSteps())].filter((step) => verbs.test(step) && !OF_A_SPARE.test(step));
    // These are of the way back of a create that fails by itself.
    const wayBack = new Set(['create:remove-files']);
    assert.deepEqual(
      missedSteps(own, known).filter((step) => !wayBack.has(step)),
      [],
    );
  });
});
