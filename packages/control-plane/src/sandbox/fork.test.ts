import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { SANDBOX_ID, ThawError } from '@thaw/api';
import { type Answer, TestPlane, until } from '../testing.ts';

describe('forks', () => {
  let test: TestPlane;
  let id: string;
  before(async () => {
    test = await TestPlane.start();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    id = await test.createSandbox({
      metadata: { app: 'x' },
      timeout_sec: 60,
      network: { internet: false, allow_out: ['203.0.113.7'] },
    });
  });

  const fork = (source: string, body?: unknown): Promise<Answer> =>
    test.ask('POST', `/v1/sandboxes/${source}/fork`, body);
  const rows = async (): Promise<number> => (await test.ask('GET', '/v1/sandboxes?limit=1000')).body.length;

  it('are as their source, under ids of their own', async () => {
    const { status, body } = await fork(id, { count: 3, env: { WHO: 'fork' } });
    assert.equal(status, 201);
    const ids = body.forks.map(({ sandbox }: { sandbox: { id: string } }) => sandbox.id);
    assert.equal(new Set([id, ...ids]).size, 4);
    for (const { sandbox } of body.forks) {
      assert.match(sandbox.id, SANDBOX_ID);
      assert.equal(sandbox.status, 'running');
      assert.deepEqual(sandbox.metadata, { app: 'x' });
      assert.equal(sandbox.timeout_sec, 60);
      assert.deepEqual(sandbox.network, { internet: false, allow_out: ['203.0.113.7'], deny_out: [] });
      assert.deepEqual((await test.ask('GET', `/v1/sandboxes/${sandbox.id}`)).body.status, 'running');
    }
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'running');
    const { verb, outcome } = (await test.ask('GET', `/v1/sandboxes/${id}/events`)).body[0];
    assert.deepEqual([verb, outcome], ['fork', 'done']);
  });

  it('are one where nothing is said, and also of a paused source', async () => {
    await test.ask('POST', `/v1/sandboxes/${id}/pause`);
    const { status, body } = await fork(id);
    assert.equal(status, 201);
    assert.equal(body.forks.length, 1);
    assert.equal(body.forks[0].sandbox.status, 'running');
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'paused');
    const noted = await fork(id, { metadata: { b: 'c' } });
    assert.deepEqual(noted.body.forks[0].sandbox.metadata, { b: 'c' });
  });

  it('fail one by one, and those leave no row', async () => {
    const before = await rows();
    test.agent.failNext('createSandbox', new ThawError('unavailable', 'no room'));
    const { status, body } = await fork(id, { count: 3 });
    assert.equal(status, 201);
    assert.deepEqual(body.forks[0], { error: { code: 'unavailable', message: 'no room' } });
    assert.ok(body.forks[1].sandbox && body.forks[2].sandbox);
    assert.equal(await rows(), before + 2);
  });

  it('are none when the source can not be frozen', async () => {
    const before = await rows();
    test.agent.failNext('forkSandbox', new ThawError('exhausted', 'the disk is full'));
    const { status, body } = await fork(id, { count: 2 });
    assert.equal(status, 429);
    assert.equal(body.error.message, 'the disk is full');
    assert.equal(await rows(), before);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'running');
  });

  it('are counted by quotas before the host is asked', async () => {
    const made = await test.ask('POST', '/v1/keys', { name: 'few', quota: { sandboxes: 3 } });
    const asFew = { 'X-API-Key': made.body.key };
    const few = (await test.ask('POST', '/v1/sandboxes', {}, asFew)).body.id;
    const calls = test.agent.count('forkSandbox');
    const refused = await test.ask('POST', `/v1/sandboxes/${few}/fork`, { count: 3 }, asFew);
    assert.equal(refused.status, 429);
    assert.equal(test.agent.count('forkSandbox'), calls);
    assert.equal((await test.ask('POST', `/v1/sandboxes/${few}/fork`, { count: 2 }, asFew)).status, 201);
  });

  it('keep other verbs away while they are made', async () => {
    const release = test.agent.hold('forkSandbox');
    const forking = fork(id, { count: 2 });
    await until(() => test.agent.calls.at(-1) === 'forkSandbox');
    assert.equal((await test.ask('POST', `/v1/sandboxes/${id}/pause`)).status, 409);
    assert.equal((await fork(id)).status, 409);
    release();
    assert.equal((await forking).status, 201);
  });

  it('refuse what makes no sense', async () => {
    for (const body of [{ count: 0 }, { count: 33 }, { count: '2' }, { other: 1 }, { env: { '=': 'x' } }])
      assert.equal((await fork(id, body)).status, 400, JSON.stringify(body));
    assert.equal((await fork('sbaaaaaaaaaaaaaaaaaaaa')).status, 404);
    assert.equal((await fork('../x')).status, 404);
    await test.ask('DELETE', `/v1/sandboxes/${id}`);
    assert.equal((await fork(id)).status, 409);
  });
});
