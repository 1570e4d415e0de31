/** VMs that wait to become sandboxes: a create that takes one gets what any other gets. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Sandbox } from '@thaw/api';
import { assertNothingStray } from './builds.ts';
import { allSteps, FAULTS, faultHappened, OF_A_SPARE, setFault } from './faults.ts';
import { Figures } from './figures.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import type { Traces } from './traces.ts';

await ownHost(import.meta.filename);

const SPARES = 2;
const MEMORY_MB = 256;
const IDENTITY =
  'hostname; cat /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid; echo $E2B_SANDBOX_ID';

describe('a VM that waits to become a sandbox', () => {
  let thaw: TestThaw;
  let ready: Traces;
  const env = {
    ...FAULTS,
    THAW_SPARES: `minimal/1x${MEMORY_MB}=${SPARES}`,
    THAW_SLOT_POOL: '1',
    THAW_BUILD_GRACE_SEC: '1',
    THAW_RECONCILE_MS: '300',
    THAW_MEMORY_MB: String(4 * MEMORY_MB),
  };
  before(async () => {
    thaw = await startThaw({ env });
    await waiting();
    ready = await thaw.traces();
  });
  after(() => thaw?.stop());

  async function waiting(count = SPARES): Promise<void> {
    await eventually(async () => {
      const { body } = await thaw.api<string>('GET', '/metrics');
      assert.equal(new Figures(body).sum('thaw_spares', { state: 'ready' }), count);
    }, 60_000);
  }

  const create = (memory_mb = MEMORY_MB, more = {}) =>
    thaw.sdk.sandboxes.create({ template: 'minimal', memory_mb, ...more });
  const wasSpare = ({ timings_ms }: Sandbox) => 'create:take-spare' in (timings_ms ?? {});

  it('becomes one with an identity of its own, and another takes its place', async () => {
    const made = await Promise.all([create(), create()]);
    assert.deepEqual(made.map(wasSpare), [true, true]);
    const [one, other] = await Promise.all(made.map(({ id }) => thaw.sh(id, IDENTITY)));
    const lines = [one!, other!].map((text) => text.trim().split('\n'));
    assert.equal(lines[0]!.length, 5);
    for (const [at, line] of lines[0]!.entries()) assert.notEqual(line, lines[1]![at]);
    assert.deepEqual([lines[0]![0], lines[0]![4]], [made[0]!.id, made[0]!.id]);
    const seconds = Number(await thaw.sh(made[0]!.id, 'date +%s'));
    assert.ok(Math.abs(seconds - Date.now() / 1000) < 5, 'its clock is right');
    await thaw.destroyAll();
    await waiting();
    const same = (now: Traces) => isDeepStrictEqual(now, ready);
    assert.deepEqual(await thaw.settledTraces(same), ready);
    await eventually(() => assertNothingStray(thaw));
  });

  it('has nobody look in before it is somebody, and keeps to what its sandbox may reach', async () => {
    const shut = await create(MEMORY_MB, { network: { internet: false } });
    assert.ok(wasSpare(shut));
    assert.equal(shut.network.internet, false);
    await thaw.destroyAll();
  });

  it('is paused, resumed and taken over by the next host agent like any other', async () => {
    await waiting();
    const made = await create();
    assert.ok(wasSpare(made));
    await thaw.sh(made.id, 'echo kept | tee /root/kept > /dev/shm/kept; sync');
    await thaw.restart();
    assert.equal((await thaw.sdk.sandboxes.get(made.id)).status, 'running');
    assert.equal(await thaw.sh(made.id, 'cat /root/kept /dev/shm/kept'), 'kept\nkept\n');
    await thaw.sdk.sandboxes.pause(made.id);
    await thaw.sdk.sandboxes.resume(made.id);
    assert.equal(await thaw.sh(made.id, 'cat /root/kept /dev/shm/kept'), 'kept\nkept\n');
    await thaw.destroyAll();
    await waiting();
    await eventually(() => assertNothingStray(thaw));
  });

  it('makes room for a sandbox that needs it', async () => {
    await waiting();
    const large = await create(3 * MEMORY_MB);
    assert.ok(!wasSpare(large));
    assert.equal(await thaw.sh(large.id, 'echo fine'), 'fine\n');
    await waiting(0);
    const last = await create();
    assert.ok(!wasSpare(last));
    await assert.rejects(create(), { kind: 'exhausted' });
    await thaw.destroyAll();
  });

  it('fails at any step without a trace, and the next one does not', async () => {
    const steps = [...(await allSteps())].filter((step) => OF_A_SPARE.test(step));
    assert.ok(steps.length >= 4, steps.join());
    for (const step of steps) {
      await waiting();
      await setFault(thaw, step);
      const [first] = await Promise.allSettled([create()]);
      assert.equal(first!.status, step.startsWith('create:') ? 'rejected' : 'fulfilled', step);
      await eventually(async () => assert.ok(await faultHappened(thaw), step), 10_000);
      await thaw.destroyAll();
      // Whoever creates the next one has those made that are missing.
      await thaw.sdk.sandboxes.delete((await create()).id);
      await waiting();
      const same = (now: Traces) => isDeepStrictEqual(now, ready);
      assert.deepEqual(await thaw.settledTraces(same), ready, step);
      await eventually(() => assertNothingStray(thaw, step));
    }
  });

  it('of a snapshot keeps its processes as they were frozen until it is somebody', async () => {
    const source = await create();
    await thaw.sh(
      source.id,
      '(n=0; while sleep 0.1; do n=$((n+1)); echo $n > /dev/shm/count; done) > /dev/null 2>&1 &',
    );
    const count = async (id: string) => Number(await thaw.sh(id, 'cat /dev/shm/count'));
    await eventually(async () => assert.ok((await count(source.id)) > 3));
    const { id } = await thaw.sdk.snapshots.create(source.id, { name: 'counting' });
    const frozen = await count(source.id);
    await thaw.destroyAll();
    env.THAW_SPARES = `${id}=1`;
    await thaw.restart();
    await waiting(1);
    await sleep(3000);
    const made = await thaw.sdk.sandboxes.create({ template: 'counting' });
    assert.ok(wasSpare(made));
    const now = await count(made.id);
    assert.ok(now < frozen + 15, `${frozen} became ${now} while nobody was there`);
    await eventually(async () => assert.ok((await count(made.id)) > now));
    // One of a template that was replaced is of no use.
    await thaw.sh(made.id, 'echo new > /dev/shm/new');
    await thaw.sdk.snapshots.create(made.id, { name: 'counting', overwrite: true });
    const after = await thaw.sdk.sandboxes.create({ template: 'counting' });
    assert.equal(await thaw.sh(after.id, 'cat /dev/shm/new'), 'new\n');
    await thaw.destroyAll();
    env.THAW_SPARES = `minimal/1x${MEMORY_MB}=${SPARES}`;
    await thaw.restart();
    await thaw.sdk.snapshots.delete('counting');
  });

  it('ends with a host agent that is killed', async () => {
    await thaw.restart();
    await waiting();
    const { agent } = await thaw.agentPids();
    process.kill(agent, 'SIGKILL');
    await waiting();
    const same = (now: Traces) => isDeepStrictEqual(now, ready);
    assert.deepEqual(await thaw.settledTraces(same), ready);
    assert.equal((await readdir(path.join(thaw.data, 'spares'))).length, SPARES);
    for (const step of ['create:take-spare', 'create:go-on']) {
      await setFault(thaw, step, 'kill');
      await assert.rejects(create(), { kind: 'unavailable' }, step);
      assert.ok(await faultHappened(thaw), step);
      await waiting();
      await eventually(async () => {
        assert.deepEqual(await Array.fromAsync(thaw.sdk.sandboxes.list()), [], step);
        assert.deepEqual(await thaw.settledTraces(same), ready, step);
        await assertNothingStray(thaw, step);
      }, 30_000);
    }
  });
});
