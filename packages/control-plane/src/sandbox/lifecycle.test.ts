/** Times, waking, changing and keeping: what happens to sandboxes besides the verbs that are asked for. */
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { OPEN_NETWORK, type SandboxStatus, ThawError } from '@thaw/api';
import { SandboxInfoSchema } from '@thaw/api/rpc';
import { reconcile } from '../reconcile/loop.ts';
import { Orphans } from '../reconcile/orphans.ts';
import { retain } from '../reconcile/retention.ts';
import { TestPlane, until } from '../testing.ts';

const NEVER = { timeout_sec: 0 };

describe('the life of a sandbox', () => {
  let test: TestPlane;
  before(async () => {
    test = await TestPlane.start({ clockMs: 50 });
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const get = async (id: string) => (await test.ask('GET', `/v1/sandboxes/${id}`)).body;
  const becomes = (id: string, status: SandboxStatus) => until(async () => (await get(id)).status === status);
  const patch = (id: string, change: unknown) => test.ask('PATCH', `/v1/sandboxes/${id}`, change);
  const verb = (id: string, name: string, body?: unknown) =>
    test.ask('POST', `/v1/sandboxes/${id}/${name}`, body);
  const exec = (id: string, script = 'echo hello') => verb(id, 'exec', { cmd: 'sh', args: ['-c', script] });
  const row = (id: string) =>
    test.running.plane.db.selectFrom('sandboxes').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
  const set = (id: string, columns: object) =>
    test.running.plane.db.updateTable('sandboxes').set(columns).where('id', '=', id).execute();

  it('has times that are told, with defaults under which nothing is lost', async () => {
    const id = await test.createSandbox();
    const made = await get(id);
    assert.deepEqual(
      [made.timeout_sec, made.on_timeout, made.auto_resume, made.network],
      [300, 'pause', true, OPEN_NETWORK],
    );
    assert.equal(made.end_at, undefined);
    const network = { allow_out: ['192.0.2.0/24'] };
    const other = await get(
      await test.createSandbox({ timeout_sec: 0, on_timeout: 'kill', auto_resume: false, network }),
    );
    assert.deepEqual([other.timeout_sec, other.on_timeout, other.auto_resume], [0, 'kill', false]);
    // A list of what is allowed alone means that all else is not.
    assert.deepEqual(other.network, { internet: false, allow_out: ['192.0.2.0/24'], deny_out: [] });
    assert.equal(test.agent.lastCreate?.network?.internet, false);
    assert.deepEqual(test.agent.lastCreate?.network?.allowOut, ['192.0.2.0/24']);
  });

  it('is paused or destroyed when it was idle for its time', async () => {
    const paused = await test.createSandbox({ timeout_sec: 1 });
    const killed = await test.createSandbox({ timeout_sec: 1, on_timeout: 'kill' });
    const kept = await test.createSandbox(NEVER);
    await Promise.all([becomes(paused, 'paused'), becomes(killed, 'stopped')]);
    assert.equal((await get(kept)).status, 'running');
    assert.equal(test.agent.sandboxes.has(killed), false);
    assert.equal(test.agent.sandboxes.get(paused)?.status, 'paused');
  });

  it('is not idle while a command runs, and its time begins anew after it', async () => {
    const id = await test.createSandbox({ timeout_sec: 1, on_timeout: 'kill' });
    assert.equal((await exec(id, 'sleep 2.5; echo done')).body.stdout, 'done\n');
    assert.equal((await get(id)).status, 'running');
    await becomes(id, 'stopped');
  });

  it('ends at its moment whatever it does, and is resumed for a while', async () => {
    const id = await test.createSandbox();
    const busy = exec(id, 'sleep 3');
    await until(() => test.agent.calls.at(-1) === 'exec');
    await set(id, { timeout_sec: 0, end_at: new Date() });
    await becomes(id, 'paused');
    await busy;
    const resumed = await verb(id, 'resume');
    assert.ok(Date.parse(resumed.body.end_at) > Date.now() + 200_000);
    // The two clocks exclude each other: one that is set takes the other's place.
    const patched = await patch(id, { timeout_sec: 60 });
    assert.equal(patched.body.end_at, undefined);
    assert.equal(patched.body.timeout_sec, 60);
    await assert.rejects(set(id, { end_at: new Date() }), /sandboxes_one_clock/);
  });

  it('ends in time though the control plane was away', async () => {
    const id = await test.createSandbox({ timeout_sec: 1 });
    const other = await test.createSandbox({ timeout_sec: 600 });
    await test.restart();
    await becomes(id, 'paused');
    assert.equal((await get(other)).status, 'running');
  });

  it('stays when it cannot be paused, and is not asked again at once', async () => {
    test.agent.failNext('pauseSandbox', new ThawError('exhausted', 'the disk is full'));
    const before = test.agent.count('pauseSandbox');
    const id = await test.createSandbox({ timeout_sec: 1 });
    await until(() => test.agent.count('pauseSandbox') === before + 1);
    await becomes(id, 'running');
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal(test.agent.count('pauseSandbox'), before + 1);
    await patch(id, NEVER);
  });

  it('is woken once for all who want in', async () => {
    const id = await test.createSandbox(NEVER);
    await verb(id, 'pause');
    const before = test.agent.count('resumeSandbox');
    const release = test.agent.hold('resumeSandbox');
    const waiting = [...Array(8)].map((_, n) => exec(id, `echo ${n}`));
    waiting.push(verb(id, 'files/read', { path: '/nosuch' }));
    await until(() => test.agent.count('resumeSandbox') > before);
    assert.equal((await verb(id, 'pause')).status, 409);
    release();
    const answers = await Promise.all(waiting);
    assert.deepEqual(
      answers.map(({ status, body }) => (status === 200 ? body.stdout : status)),
      [...[...Array(8)].map((_, n) => `${n}\n`), 404],
    );
    assert.equal(test.agent.count('resumeSandbox'), before + 1);
  });

  it('is woken when the pause is over that a command came in', async () => {
    const id = await test.createSandbox(NEVER);
    const release = test.agent.hold('pauseSandbox');
    const paused = verb(id, 'pause');
    await until(() => test.agent.calls.at(-1) === 'pauseSandbox');
    const command = exec(id);
    release();
    assert.equal((await paused).body.status, 'paused');
    assert.equal((await command).body.stdout, 'hello\n');
    assert.equal((await get(id)).status, 'running');
  });

  it('runs a command that came in the moment that it was paused', async () => {
    const id = await test.createSandbox(NEVER);
    const release = test.agent.hold('exec');
    const command = exec(id);
    await until(() => test.agent.calls.at(-1) === 'exec');
    await verb(id, 'pause');
    release();
    assert.equal((await command).body.stdout, 'hello\n');
    assert.equal((await get(id)).status, 'running');
  });

  it('is not woken where that was ruled out, nor from an error', async () => {
    const id = await test.createSandbox({ ...NEVER, auto_resume: false });
    await verb(id, 'pause');
    const before = test.agent.count('resumeSandbox');
    assert.equal((await exec(id)).status, 409);
    assert.equal((await verb(id, 'files/read', { path: '/x' })).status, 409);
    await patch(id, { auto_resume: true });
    await set(id, { status: 'error' });
    assert.equal((await exec(id)).status, 409);
    assert.equal(test.agent.count('resumeSandbox'), before);
    await set(id, { status: 'paused' });
    test.agent.failNext('resumeSandbox', new ThawError('unavailable', 'the host is busy'));
    assert.equal((await exec(id)).status, 503);
    assert.equal((await exec(id)).status, 200);
  });

  it('joins a verb of which only the row tells', async () => {
    const id = await test.createSandbox(NEVER);
    await set(id, { status: 'resuming', plane: 1 });
    const resumed = verb(id, 'resume');
    const command = exec(id);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal((await verb(id, 'pause')).status, 409);
    await set(id, { status: 'running' });
    assert.deepEqual([(await resumed).status, (await command).status], [200, 200]);
  });

  it('is changed while it runs and while it is paused', async () => {
    const id = await test.createSandbox({ metadata: { a: '1', b: '2' } });
    const changed = await patch(id, { timeout_sec: 0, on_timeout: 'kill', metadata: { c: '3' } });
    assert.equal(changed.status, 200, JSON.stringify(changed.body));
    assert.deepEqual(changed.body.metadata, { c: '3' });
    assert.deepEqual([changed.body.timeout_sec, changed.body.on_timeout], [0, 'kill']);
    assert.equal(changed.body.auto_resume, true);

    await patch(id, { network: { deny_out: ['192.0.2.0/24'] } });
    assert.deepEqual(test.agent.sandboxes.get(id)?.network?.denyOut, ['192.0.2.0/24']);
    assert.equal(test.agent.sandboxes.get(id)?.network?.internet, true);
    await verb(id, 'pause');
    const before = test.agent.count('setNetwork');
    const shut = await patch(id, { network: { internet: false } });
    assert.deepEqual(shut.body.network, { internet: false, allow_out: [], deny_out: [] });
    assert.equal(test.agent.count('setNetwork'), before);
    await verb(id, 'resume');
    assert.equal(test.agent.lastResume?.network?.internet, false);
    assert.deepEqual(test.agent.lastResume?.network?.denyOut, []);

    for (const change of [{}, { vcpus: 2 }, { timeout_sec: -1 }, { network: { deny_out: ['x'] } }, 'x', '']) {
      assert.equal((await patch(id, change)).status, 400, JSON.stringify(change));
    }
    assert.equal((await patch(`sb${'a'.repeat(20)}`, NEVER)).status, 404);
    await test.ask('DELETE', `/v1/sandboxes/${id}`);
    for (const change of [NEVER, { network: {} }]) assert.equal((await patch(id, change)).status, 409);
  });

  it('keeps its network when the host did not take a new one, and gets it from reconcile when it missed it', async () => {
    const id = await test.createSandbox(NEVER);
    test.agent.failNext('setNetwork', new ThawError('unavailable', 'busy'));
    assert.equal((await patch(id, { network: { internet: false }, metadata: { a: 'b' } })).status, 503);
    assert.deepEqual((await get(id)).network, OPEN_NETWORK);
    assert.deepEqual((await get(id)).metadata, {});
    const network = { allow_out: ['*.example.com', '192.0.2.1'], dns_servers: ['192.0.2.53'] };
    await set(id, { network: JSON.stringify({ ...network, internet: false, deny_out: [] }) });
    await reconcile(test.running.plane);
    const told = test.agent.sandboxes.get(id)?.network;
    assert.equal(told?.internet, false);
    assert.deepEqual(told?.allowOut, ['192.0.2.1']);
    assert.deepEqual([told?.allowDomains, told?.dnsServers], [['*.example.com'], ['192.0.2.53']]);
    const before = test.agent.count('setNetwork');
    await reconcile(test.running.plane);
    assert.equal(test.agent.count('setNetwork'), before);
  });

  it('boots its disk when its memory is not wanted', async () => {
    const id = await test.createSandbox(NEVER);
    await verb(id, 'pause');
    const { build } = await get(id);
    const cold = await verb(id, 'resume', { memory: false });
    assert.equal(cold.body.status, 'running', JSON.stringify(cold.body));
    assert.equal(test.agent.lastResume?.cold, true);
    // The disk is of the instant of the pause: nothing was rolled back.
    assert.equal(cold.body.rolled_back_to, undefined);
    assert.equal((await verb(id, 'resume', { memory: 'no' })).status, 400);
    assert.equal((await verb(id, 'resume', { memory: true, more: 1 })).status, 400);
    test.agent.sandboxes.get(id)!.status = 'error';
    await reconcile(test.running.plane);
    const back = await verb(id, 'resume', { memory: false });
    assert.equal(back.body.rolled_back_to, build.id);
    assert.equal(back.body.build.id, build.id);
    await verb(id, 'pause');
    assert.equal((await get(id)).rolled_back_to, undefined);
  });

  it('refuses a resume of another kind than the one under way', async () => {
    const id = await test.createSandbox(NEVER);
    await verb(id, 'pause');
    const release = test.agent.hold('resumeSandbox');
    const warm = verb(id, 'resume');
    await until(() => test.agent.calls.at(-1) === 'resumeSandbox');
    assert.equal((await verb(id, 'resume', { memory: false })).status, 409);
    release();
    assert.equal((await warm).status, 200);
    assert.equal(test.agent.lastResume?.cold, false);
  });

  it('ends what was begun for clients that went away, and the row agrees', async () => {
    const random = seeded(7);
    const id = await test.createSandbox({ ...NEVER, auto_resume: false });
    for (let round = 0; round < 30; round++) {
      const status = (await get(id)).status;
      const snapshot = round % 3 === 0;
      const path = snapshot
        ? '/v1/snapshots'
        : `/v1/sandboxes/${id}/${status === 'running' ? 'pause' : 'resume'}`;
      const rpc = snapshot ? 'createSnapshot' : status === 'running' ? 'pauseSandbox' : 'resumeSandbox';
      const release = test.agent.hold(rpc);
      const asked = request(test.url + path, {
        method: 'POST',
        agent: false,
        headers: { 'X-API-Key': test.key, 'Content-Type': 'application/json' },
      });
      const closed = new Promise((resolve) => asked.once('close', resolve));
      asked.once('response', (answer) => answer.resume());
      asked
        .on('error', () => {})
        .end(JSON.stringify(snapshot ? { sandbox_id: id, name: `gone-${round}` } : {}));
      setTimeout(() => asked.destroy(), random() * 12);
      setTimeout(release, random() * 12);
      await closed;
      release();
      // A request may have been read only after its client was gone.
      const { verbs, templateVerbs } = test.running.plane;
      await until(async () => {
        const now = (await get(id)).status;
        const busy = verbs.has(id) || templateVerbs.has(`default/gone-${round}`);
        return !busy && now === test.agent.sandboxes.get(id)?.status;
      });
    }
    assert.equal(await reconcile(test.running.plane), 0);
  });

  describe('kept things', () => {
    const stray = (age_sec: number) => {
      const sandboxId = `sb${Math.random().toString(36).slice(2, 12).padEnd(20, 'x')}`;
      const createdAtUnix = BigInt(Math.floor(Date.now() / 1000) - age_sec);
      const info = create(SandboxInfoSchema, { sandboxId, status: 'running', createdAtUnix });
      test.agent.sandboxes.set(sandboxId, info);
      return sandboxId;
    };

    it('go after a while when no row wants them, unless they are paused or older than the database', async () => {
      const { plane } = test.running;
      // A second of the host's clock is the finest that it tells.
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const [lost, old] = [stray(0), stray(86_400)];
      const paused = stray(0);
      test.agent.sandboxes.get(paused)!.status = 'paused';
      const wanted = await test.createSandbox(NEVER);
      const patient = new Orphans(plane, 3_600_000);
      assert.equal(await patient.sweep(await plane.host.list()), 0);
      assert.ok(test.agent.sandboxes.has(lost));
      const orphans = new Orphans(plane, 0);
      assert.equal(await orphans.sweep(await plane.host.list()), 1);
      assert.equal(test.agent.sandboxes.has(lost), false);
      for (const kept of [old, paused]) assert.ok(test.agent.sandboxes.has(kept));
      assert.ok(test.agent.sandboxes.has(wanted));
      // One whose row says that it is no more is wanted by nobody either.
      await set(wanted, { status: 'stopped' });
      assert.equal(await orphans.sweep(await plane.host.list()), 1);
      assert.equal(test.agent.sandboxes.has(wanted), false);
      for (const kept of [old, paused]) test.agent.sandboxes.delete(kept);
    });

    it('go when they were paused or stopped for longer than they are kept', async () => {
      const { plane } = test.running;
      const kept = { deletePausedAfterSec: 100, purgeStoppedAfterSec: 86_400 };
      const [long, lately, gone] = [
        await test.createSandbox(NEVER),
        await test.createSandbox(NEVER),
        await test.createSandbox(NEVER),
      ];
      for (const id of [long, lately]) await verb(id, 'pause');
      await test.ask('DELETE', `/v1/sandboxes/${gone}`);
      await set(long, { status_since: new Date(Date.now() - 101_000) });
      await set(gone, { status_since: new Date(Date.now() - 86_401_000) });
      // Notes do not make it younger.
      await patch(long, { metadata: { a: 'b' } });
      await retain(plane, { ...kept, deletePausedAfterSec: 0 });
      assert.equal((await get(long)).status, 'paused');
      assert.equal((await test.ask('GET', `/v1/sandboxes/${gone}`)).status, 404);
      await retain(plane, kept);
      assert.equal((await get(long)).status, 'stopped');
      assert.equal((await get(lately)).status, 'paused');
      assert.equal(test.agent.sandboxes.has(long), false);
      assert.ok((await row(long)).status_since.getTime() > Date.now() - 60_000);
    });
  });
});

/** Numbers in [0, 1), the same for the same seed. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return state / 0x8000_0000;
  };
}
