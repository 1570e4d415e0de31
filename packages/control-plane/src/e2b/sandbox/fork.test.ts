import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { SANDBOX_ID, ThawError } from '@thaw/api';
import { type Answer, TestPlane, until } from '../../testing.ts';

describe('forks of the E2B API', () => {
  let test: TestPlane;
  let source: Record<string, string>;
  before(async () => {
    test = await TestPlane.start({ domain: 'sbx.localhost:3443' });
    const wish = { templateID: 'base', timeout: 600, metadata: { app: 'x' }, autoPause: true };
    const { body } = await test.ask('POST', '/v2/sandboxes', {
      ...wish,
      network: { denyOut: ['203.0.113.0/24'], allowPublicTraffic: false, httpsPorts: [8443] },
    });
    source = body;
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const fork = (body?: unknown, id = source.sandboxID): Promise<Answer> =>
    test.ask('POST', `/sandboxes/${id}/fork`, body);
  const detail = async (id: string) => (await test.ask('GET', `/sandboxes/${id}`)).body;

  it('are sandboxes like their source, with tokens and a time of their own', async () => {
    const began = Date.now();
    const { status, body } = await fork({ count: 3, timeout: 120 });
    assert.equal(status, 201, JSON.stringify(body));
    assert.equal(body.length, 3);
    const tokens = new Set([source.envdAccessToken, source.trafficAccessToken]);
    for (const result of body) {
      assert.deepEqual(Object.keys(result), ['sandbox']);
      const { sandboxID, envdAccessToken, trafficAccessToken, ...rest } = result.sandbox;
      assert.match(sandboxID, SANDBOX_ID);
      const { sandboxID: _, envdAccessToken: __, trafficAccessToken: ___, ...like } = source;
      assert.deepEqual(rest, like);
      tokens.add(envdAccessToken).add(trafficAccessToken);
      const seen = await detail(sandboxID);
      assert.deepEqual(
        [seen.state, seen.metadata, seen.lifecycle],
        ['running', { app: 'x' }, { onTimeout: 'pause', autoResume: false }],
      );
      assert.deepEqual(seen.network, {
        denyOut: ['203.0.113.0/24'],
        allowPublicTraffic: false,
        httpsPorts: [8443],
      });
      const ends = Date.parse(seen.endAt) - 120_000;
      assert.ok(ends >= began && ends <= Date.now(), seen.endAt);
    }
    assert.equal(tokens.size, 8, 'two of the source, two of each');
    const still = await detail(source.sandboxID!);
    assert.equal(still.state, 'running');
    assert.ok(Date.parse(still.endAt) > began + 500_000);
  });

  it('are one for 15 seconds where nothing is said', async () => {
    for (const body of [undefined, {}, { count: null, other: 1 }]) {
      const answer = await fork(body);
      assert.equal(answer.status, 201, JSON.stringify(answer.body));
      assert.equal(answer.body.length, 1);
      const left = Date.parse((await detail(answer.body[0].sandbox.sandboxID)).endAt) - Date.now();
      assert.ok(left > 5000 && left <= 15_000, `${left}`);
    }
  });

  it('are told one by one when some fail', async () => {
    test.agent.failNext('createSandbox', new ThawError('unavailable', 'no room'));
    const { status, body } = await fork({ count: 2, timeout: 60 });
    assert.equal(status, 201);
    assert.deepEqual(body[0], { error: { code: 503, message: 'no room' } });
    assert.deepEqual(Object.keys(body[1]), ['sandbox']);
  });

  it('are none when the source can not be frozen or is at work', async () => {
    test.agent.failNext('forkSandbox', new ThawError('exhausted', 'the disk is full'));
    const full = await fork({ count: 2 });
    assert.deepEqual([full.status, full.body], [429, { code: 429, message: 'the disk is full' }]);
    const release = test.agent.hold('forkSandbox');
    const forking = fork();
    await until(() => test.agent.calls.at(-1) === 'forkSandbox');
    assert.equal((await fork()).status, 409);
    release();
    assert.equal((await forking).status, 201);
  });

  it('of one that ends by being idle have an absolute end all the same', async () => {
    const id = await test.createSandbox({ timeout_sec: 60 });
    const { body } = await fork({ timeout: 30 }, id);
    const child = (await test.ask('GET', `/v1/sandboxes/${body[0].sandbox.sandboxID}`)).body;
    assert.deepEqual([child.timeout_sec, typeof child.end_at], [0, 'string']);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.timeout_sec, 60);
  });

  it('refuse what makes no sense', async () => {
    for (const body of [{ count: 0 }, { count: 21 }, { count: '2' }, { timeout: 0 }, { timeout: -1 }])
      assert.equal((await fork(body)).status, 400, JSON.stringify(body));
    assert.equal((await fork({}, 'sbaaaaaaaaaaaaaaaaaaaa')).status, 404);
    await test.ask('DELETE', `/sandboxes/${source.sandboxID}`);
    assert.equal((await fork()).status, 404);
  });
});
