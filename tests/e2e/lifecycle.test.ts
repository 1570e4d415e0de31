/** One sandbox from create to destroy through every state, and what of it is left on the host. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SandboxStatus } from '@thaw/api';
import { buildNames } from './builds.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { fullTraces } from './places.ts';
import { allocatedBelow, isRunning, type Traces } from './traces.ts';

await ownHost(import.meta.filename);

const SLOTS = 2;
const ROLES = ['vmm', 'pager', 'blockstore', 'keeper'];
/** Starts what counts five times a second. */
const COUNTER = `
  count='n=0; while :; do n=$((n+1)); echo $n > /tmp/counter; sleep 0.2; done'
  setsid sh -c "$count" < /dev/null > /dev/null 2>&1 &
  echo $! > /tmp/counter.pid`;

describe('a sandbox', () => {
  let thaw: TestThaw;
  /** With full slots and no sandbox. */
  let idle: Traces;
  let idleBuilds: string[];
  before(async () => {
    thaw = await startThaw({ env: { THAW_SLOT_POOL: String(SLOTS), THAW_RECONCILE_MS: '500' } });
    idle = await fullTraces(thaw, SLOTS);
    idleBuilds = await builds();
  });
  // One that failed leaves nothing to the next.
  afterEach(() => thaw.destroyAll());
  after(() => thaw?.stop());

  const builds = () => buildNames(thaw);
  const { create, pause, resume, get, stats, ...verbs } = {
    create: () => thaw.sdk.sandboxes.create({ auto_resume: false }),
    pause: (id: string) => thaw.sdk.sandboxes.pause(id),
    resume: (id: string) => thaw.sdk.sandboxes.resume(id),
    get: (id: string) => thaw.sdk.sandboxes.get(id),
    stats: (id: string) => thaw.sdk.sandboxes.stats(id),
    destroy: (id: string) => thaw.sdk.sandboxes.delete(id),
  };
  const status = async (id: string): Promise<SandboxStatus> => (await get(id)).status;

  async function assertIdle(): Promise<void> {
    const same = (now: Traces) => JSON.stringify(now) === JSON.stringify(idle);
    assert.deepEqual(await thaw.settledTraces(same), idle);
  }

  async function assertGone(id: string): Promise<void> {
    await assertIdle();
    assert.deepEqual(await builds(), idleBuilds);
    assert.ok(!(await readdir(path.join(thaw.data, 'sandboxes'))).includes(id), 'its folder is left');
    assert.equal(await status(id), 'stopped');
    await verbs.destroy(id);
  }

  it('gives everything back while it is paused, and goes on where it was', async () => {
    const created = await create();
    const { id } = created;
    assert.equal(created.status, 'running');
    assert.match(created.isolation ?? '', /^(emulated|hardware-vm)$/);
    assert.equal(created.template, 'minimal');
    await thaw.sh(id, 'head -c 3000000 /dev/urandom > /root/random; md5sum /root/random > /root/sum; sync');
    await thaw.sh(
      id,
      'head -c 8000000 /dev/urandom > /dev/shm/random; md5sum /dev/shm/random > /dev/shm/sum',
    );
    await thaw.sh(id, COUNTER);
    await eventually(() => thaw.sh(id, 'test "$(cat /tmp/counter)" -gt 2'));
    const { pids } = await stats(id);
    assert.deepEqual(Object.keys(pids).toSorted(), ROLES.toSorted());
    for (const pid of Object.values(pids)) assert.ok(await isRunning(pid));

    const paused = await pause(id);
    assert.equal(paused.status, 'paused');
    for (const [role, pid] of Object.entries(pids)) assert.equal(await isRunning(pid), false, role);
    await assertIdle();
    assert.equal(paused.guest_ip, undefined);
    assert.ok(paused.build !== undefined && paused.build.stored_bytes > 0);
    assert.equal(
      paused.build.stored_bytes,
      await allocatedBelow(path.join(thaw.data, 'builds', paused.build.id)),
    );
    const refused = await thaw.api('POST', `/v1/sandboxes/${id}/exec`, { cmd: 'true' });
    assert.deepEqual([refused.status, refused.body.error.code], [409, 'invalid_state']);

    const resumed = await resume(id);
    assert.equal(resumed.status, 'running');
    await thaw.sh(id, 'cd / && md5sum -c --quiet /root/sum && md5sum -c --quiet /dev/shm/sum');
    const count = async () =>
      Number(await thaw.sh(id, 'kill -0 $(cat /tmp/counter.pid) && cat /tmp/counter'));
    const first = await count();
    assert.ok(first > 2);
    await eventually(async () => assert.ok((await count()) > first));
    const seen = await stats(id);
    assert.ok(seen.pages_faulted > 0 && seen.pages_faulted < seen.pages_total / 2, JSON.stringify(seen));
    await verbs.destroy(id);
    await assertGone(id);
  });

  it('has a clock, a host name and fresh randomness after a resume', async () => {
    const { id } = await create();
    await pause(id);
    await sleep(2000);
    await resume(id);
    const clock = Number(await thaw.sh(id, 'date +%s.%N'));
    assert.ok(Math.abs(clock - Date.now() / 1000) < 1.5, `the guest's clock is off: ${clock}`);
    assert.equal((await thaw.sh(id, 'hostname')).trim(), id);
    await verbs.destroy(id);
  });

  it('leaves nothing when it is destroyed while paused', async () => {
    const { id } = await create();
    await thaw.sh(id, 'head -c 5000000 /dev/urandom > /root/file');
    await pause(id);
    await resume(id);
    await pause(id);
    await verbs.destroy(id);
    await assertGone(id);
  });

  it('leaves nothing when it is destroyed while it runs a program', async () => {
    const { id } = await create();
    const run = thaw.sdk.sandboxes.execStream(id, { cmd: 'sleep', args: ['1000'] });
    await run.pid;
    await verbs.destroy(id);
    await assert.rejects(run.result);
    await assertGone(id);
  });

  it('is an error when its VM dies, and leaves nothing when it is destroyed then', async () => {
    const { id } = await create();
    process.kill((await stats(id)).pids.vmm!, 'SIGKILL');
    await eventually(async () => assert.equal(await status(id), 'error'));
    assert.ok((await get(id)).error_reason);
    // What the dead VM occupied is given back at once.
    await assertIdle();
    const refused = await thaw.api('POST', `/v1/sandboxes/${id}/pause`);
    assert.deepEqual([refused.status, refused.body.error.code], [409, 'invalid_state']);
    await verbs.destroy(id);
    await assertGone(id);
  });

  it('goes on from its last seal after its VM died, and says so', async () => {
    const { id } = await create();
    await thaw.sh(id, 'echo sealed > /root/file; sync');
    const { build } = await pause(id);
    await resume(id);
    await thaw.sh(id, 'echo lost > /root/file; sync');
    process.kill((await stats(id)).pids.vmm!, 'SIGKILL');
    await eventually(async () => assert.equal(await status(id), 'error'));
    const resumed = await resume(id);
    assert.equal(resumed.status, 'running');
    assert.equal(resumed.rolled_back_to, build?.id);
    assert.equal(await thaw.sh(id, 'cat /root/file'), 'sealed\n');
    await verbs.destroy(id);
    await assertGone(id);
  });

  it('is powered off by its guest', async () => {
    const { id } = await create();
    await thaw.sh(id, '(sleep 0.3; poweroff || kill -TERM 1) > /dev/null 2>&1 &');
    await eventually(async () => assert.notEqual(await status(id), 'running'));
    assert.match(await status(id), /^(stopped|error)$/);
    await verbs.destroy(id);
    await assertGone(id);
  });

  it('is paused under a running stream: the stream ends, its process lives on', async () => {
    const { id } = await create();
    const run = thaw.sdk.sandboxes.execStream(id, { cmd: 'sleep', args: ['2468'] });
    const pid = await run.pid;
    const ended = assert.rejects(run.result, { kind: 'unavailable' });
    await pause(id);
    await ended;
    await resume(id);
    for (let look = 0; look < 3; look++) {
      await sleep(500);
      await thaw.sh(id, `kill -0 ${pid}`);
    }
    await verbs.destroy(id);
  });

  it('refuses what its state forbids, and joins the same verb', async () => {
    const { id } = await create();
    const twice = await Promise.all([pause(id), pause(id)]);
    assert.equal(twice[0].build?.id, twice[1].build?.id);
    assert.equal((await thaw.api('POST', `/v1/sandboxes/${id}/pause`)).status, 409);
    const both = await Promise.all([resume(id), resume(id)]);
    assert.deepEqual(
      both.map((one) => one.status),
      ['running', 'running'],
    );
    assert.equal((await thaw.api('POST', `/v1/sandboxes/${id}/resume`)).status, 409);
    const [paused] = await Promise.allSettled([pause(id), verbs.destroy(id)]);
    assert.ok(paused.status === 'fulfilled' || /stop|exist/.test(String(paused.reason)), String(paused));
    await assertGone(id);
    assert.equal((await thaw.api('GET', '/v1/sandboxes/sbaaaaaaaaaaaaaaaaaaaa')).status, 404);
  });

  it('outlives a restart of the daemons, running or paused', async () => {
    const [running, paused] = [await create(), await create()];
    await thaw.sh(paused, 'echo here > /root/file');
    await pause(paused.id);
    await thaw.sh(running, COUNTER);
    const { pids } = await stats(running.id);
    await thaw.restart();
    assert.equal(await status(running.id), 'running');
    assert.deepEqual((await stats(running.id)).pids, pids);
    await thaw.sh(running, 'kill -0 $(cat /tmp/counter.pid)');
    await resume(paused.id);
    assert.equal(await thaw.sh(paused, 'cat /root/file'), 'here\n');
    await pause(running.id);
    await resume(running.id);
    await thaw.sh(running, 'kill -0 $(cat /tmp/counter.pid)');
    await verbs.destroy(running.id);
    await verbs.destroy(paused.id);
    await assertGone(running.id);
  });
});
