/** Snapshots as templates: what they are made of, what is made of them, and what outlives them. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import type { Sandbox, WarmUpInput } from '@thaw/api';
import { assertNothingStray, buildNames, headOf, sourcesOf } from './builds.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

/** A process that counts, and memory that nobody touches any more: most of it is paged in only when it is read. */
const COLD_MB = 24;
const PREPARE = `
  setsid sh -c 'n=0; while :; do n=$((n+1)); echo $n > /dev/shm/counter; sleep 0.1; done' </dev/null >/dev/null 2>&1 &
  echo $! > /dev/shm/pid
  head -c ${COLD_MB}000000 /dev/urandom > /dev/shm/cold
  md5sum /dev/shm/cold > /dev/shm/cold.sum
  head -c 4000000 /dev/urandom > /root/file
  md5sum /root/file > /root/file.sum; sync`;
const VERIFY = 'kill -0 $(cat /dev/shm/pid) && md5sum -c --quiet /dev/shm/cold.sum /root/file.sum';

describe('a template', () => {
  let thaw: TestThaw;
  let idleBuilds: string[];
  before(async () => {
    thaw = await startThaw();
    idleBuilds = await buildNames(thaw);
  });
  afterEach(async () => {
    await thaw.destroyAll();
    for await (const { name } of thaw.sdk.snapshots.list('snapshot')) await thaw.sdk.snapshots.delete(name);
    assert.deepEqual(await buildNames(thaw), idleBuilds, 'builds that nothing refers to are left');
  });
  after(() => thaw?.stop());

  const { create, pause, resume, destroy } = {
    create: (template?: string) => thaw.sdk.sandboxes.create(template === undefined ? {} : { template }),
    pause: (id: string) => thaw.sdk.sandboxes.pause(id),
    resume: (id: string) => thaw.sdk.sandboxes.resume(id),
    destroy: (id: string) => thaw.sdk.sandboxes.delete(id),
  };
  const snapshot = (id: string, name: string, overwrite = false) =>
    thaw.sdk.snapshots.create(id, { name, overwrite });

  async function source(): Promise<Sandbox> {
    const sandbox = await create();
    await thaw.sh(sandbox, PREPARE);
    await counts(sandbox);
    return sandbox;
  }

  /** The counting process goes on. */
  async function counts(sandbox: Sandbox): Promise<void> {
    const read = async () =>
      Number(await thaw.sh(sandbox, 'kill -0 $(cat /dev/shm/pid); cat /dev/shm/counter'));
    const first = await eventually(read);
    await eventually(async () => assert.ok((await read()) > first));
  }

  async function isWhole(sandbox: Sandbox): Promise<void> {
    await thaw.sh(sandbox, VERIFY, 120);
    await counts(sandbox);
  }

  it('is made of a running sandbox, which goes on, and spawns while that runs, is paused and is destroyed', async () => {
    const from = await source();
    const { pids } = await thaw.sdk.sandboxes.stats(from.id);
    const made = await snapshot(from.id, 'frozen');
    assert.deepEqual([made.name, made.type, made.vcpus, made.memory_mb], ['frozen', 'snapshot', 1, 512]);
    assert.equal((await thaw.sdk.sandboxes.get(from.id)).status, 'running');
    assert.deepEqual((await thaw.sdk.sandboxes.stats(from.id)).pids, pids);
    await isWhole(from);

    const beside = await create('frozen');
    await isWhole(beside);
    await pause(from.id);
    const besidePaused = await create('frozen');
    await isWhole(besidePaused);
    await resume(from.id);
    await isWhole(from);
    await destroy(from.id);
    const alone = await create('frozen');
    await isWhole(alone);
    await isWhole(beside);
    await assertNothingStray(thaw);
  });

  it('is made of a paused sandbox, which stays paused', async () => {
    const from = await source();
    const { build } = await pause(from.id);
    const made = await snapshot(from.id, 'frozen');
    assert.equal(made.build?.id, build?.id);
    assert.equal((await thaw.sdk.sandboxes.get(from.id)).status, 'paused');
    await isWhole(await create('frozen'));
    await resume(from.id);
    await isWhole(from);
  });

  it('spawns strangers: names, randomness and writes of their own', async () => {
    const from = await source();
    await snapshot(from.id, 'frozen');
    const spawns = [await create('frozen'), await create('frozen')] as const;
    const all = [from, ...spawns];
    const look = async (script: string) => {
      const seen = await Promise.all(all.map((sandbox) => thaw.sh(sandbox, script)));
      assert.equal(new Set(seen).size, all.length, `${script}: ${seen}`);
      return seen.map((text) => text.trim());
    };
    await look('head -c 32 /dev/urandom | md5sum');
    await look('cat /proc/sys/kernel/random/uuid');
    await look('cat /etc/machine-id');
    assert.deepEqual(
      await look('hostname'),
      all.map(({ id }) => id),
    );
    const write = (sandbox: Sandbox) =>
      thaw.sh(
        sandbox,
        `for file in /root/mine /dev/shm/mine /root/file; do echo ${sandbox.id} > $file; done; sync`,
      );
    await Promise.all(spawns.map(write));
    for (const { id } of spawns) {
      const files = await thaw.sh(id, 'cat /root/mine /dev/shm/mine /root/file');
      assert.equal(files, `${id}\n`.repeat(3));
    }
    await thaw.sh(from, 'test ! -e /root/mine && test ! -e /dev/shm/mine');
    await isWhole(from);
    await isWhole(await create('frozen'));
  });

  it('can be overwritten and deleted under those who still read from it', async () => {
    const from = await source();
    await thaw.sh(from, 'echo first > /root/version');
    await snapshot(from.id, 'frozen');
    const [old, oldPaused] = [await create('frozen'), await create('frozen')];
    await pause(oldPaused.id);
    const refused = await thaw.api('POST', '/v1/snapshots', { sandbox_id: from.id, name: 'frozen' });
    assert.deepEqual([refused.status, refused.body.error.code], [409, 'already_exists']);

    const old1 = await headOf(thaw, 'sandboxes', old.id);
    await thaw.sh(from, 'echo second > /root/version; head -c 9000000 /dev/urandom > /dev/shm/more');
    await snapshot(from.id, 'frozen', true);
    const fresh = await create('frozen');
    assert.equal(await thaw.sh(fresh, 'cat /root/version'), 'second\n');
    await destroy(from.id);
    await thaw.sdk.snapshots.delete('frozen');
    const gone = await thaw.api('POST', '/v1/sandboxes', { template: 'frozen' });
    assert.deepEqual([gone.status, gone.body.error.code], [404, 'not_found']);
    await assertNothingStray(thaw);

    // Every page that they have not read yet comes from builds that no template names any more.
    await isWhole(old);
    await isWhole(fresh);
    await resume(oldPaused.id);
    await isWhole(oldPaused);
    for (const { id } of [old, oldPaused]) assert.equal(await thaw.sh(id, 'cat /root/version'), 'first\n');
    await pause(old.id);
    assert.ok((await sourcesOf(thaw, await headOf(thaw, 'sandboxes', old.id))).has(old1));
    await resume(old.id);
    await isWhole(old);
    await assertNothingStray(thaw);
  });

  it('has its warm-up behind it, and is not made when that fails', async () => {
    const { id } = await create();
    const warm_up = {
      run: ['(sleep 1; echo up > /dev/shm/up; exec sleep 1000) > /dev/null 2>&1 & echo $! > /dev/shm/pid'],
      ready: 'grep -q up /dev/shm/up',
    };
    await thaw.sdk.snapshots.create(id, { name: 'frozen', warm_up });
    const spawned = await create('frozen');
    assert.equal(await thaw.sh(spawned, 'kill -0 $(cat /dev/shm/pid) && cat /dev/shm/up'), 'up\n');
    const failing = (bad: WarmUpInput) => thaw.sdk.snapshots.create(id, { name: 'cold', warm_up: bad });
    await assert.rejects(failing({ run: ['exit 3'] }), { kind: 'invalid_state' });
    await assert.rejects(failing({ ready: 'false', timeout_sec: 1 }), { kind: 'timeout' });
    const made = (await Array.fromAsync(thaw.sdk.snapshots.list('snapshot'))).map(({ name }) => name);
    assert.deepEqual(made, ['frozen']);
    await assertNothingStray(thaw);
  });

  it('fixes vcpus, memory and disk', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ vcpus: 2, memory_mb: 256, disk_mb: 2048 });
    await snapshot(id, 'frozen');
    for (const wish of [{ vcpus: 1 }, { memory_mb: 512 }, { disk_mb: 4096 }]) {
      const { status, body } = await thaw.api('POST', '/v1/sandboxes', { template: 'frozen', ...wish });
      assert.deepEqual([status, body.error.code], [400, 'invalid_request'], JSON.stringify(wish));
      assert.match(body.error.message, new RegExp(Object.keys(wish)[0]!));
    }
    const same = await thaw.sdk.sandboxes.create({
      template: 'frozen',
      vcpus: 2,
      memory_mb: 256,
      disk_mb: 2048,
    });
    const inherits = await create('frozen');
    for (const spawn of [same, inherits]) {
      assert.deepEqual([spawn.vcpus, spawn.memory_mb, spawn.disk_mb], [2, 256, 2048]);
      assert.equal(await thaw.sh(spawn, 'nproc'), '2\n');
    }
    const made = await thaw.sdk.snapshots.create(inherits.id);
    assert.match(made.name, /^tpl[a-z0-9]{20}$/);
    assert.equal((await create(made.name)).vcpus, 2);
  });

  it('of type base can neither be overwritten nor deleted', async () => {
    const { id } = await create();
    for (const name of ['minimal', 'base', 'MINIMAL']) {
      for (const query of ['', '?overwrite=true']) {
        const { status, body } = await thaw.api('POST', `/v1/snapshots${query}`, { sandbox_id: id, name });
        assert.deepEqual([status, body.error.code], [409, 'already_exists'], name + query);
      }
      const { status, body } = await thaw.api('DELETE', `/v1/snapshots/${name}`);
      assert.deepEqual([status, body.error.code], [409, 'conflict'], name);
    }
    const bases = await Array.fromAsync(thaw.sdk.snapshots.list('base'));
    assert.deepEqual(bases.map(({ name }) => name).toSorted(), ['base', 'minimal']);
    assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'running');
    await assertNothingStray(thaw);
  });
});
