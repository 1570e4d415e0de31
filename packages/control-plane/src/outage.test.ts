import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { TestPlane, until } from './testing.ts';

describe('when a neighbour is away', () => {
  let test: TestPlane;
  before(async () => {
    test = await TestPlane.start({ reconcileMs: 100, server: true });
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  it('a database that crashes is 503, not 404, and a verb under way is written down afterwards', async () => {
    const id = await test.createSandbox();
    const release = test.agent.hold('pauseSandbox');
    const pausing = test.ask('POST', `/v1/sandboxes/${id}/pause`);
    await until(() => test.agent.calls.includes('pauseSandbox'));
    await test.cluster.crash();
    for (const [method, path, body] of [
      ['GET', `/v1/sandboxes/${id}`, undefined],
      ['GET', '/v1/sandboxes', undefined],
      ['POST', '/v1/sandboxes', {}],
      ['DELETE', '/v1/snapshots/app', undefined],
      ['GET', '/readyz', undefined],
    ] as const) {
      const answer = await test.ask(method, path, body);
      assert.equal(answer.status, 503, `${method} ${path} ${JSON.stringify(answer.body)}`);
      assert.equal(answer.body.error.code, 'unavailable');
      assert.doesNotMatch(JSON.stringify(answer.body), /\/tmp|socket|PGSQL/i);
    }
    assert.equal((await test.ask('GET', '/healthz')).status, 200);
    release();
    await test.cluster.restart();
    const paused = await pausing;
    assert.equal(paused.status, 200, JSON.stringify(paused.body));
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'paused');
  });

  it('a host agent that is away is 503, without its socket, and no row is left', async () => {
    const id = await test.createSandbox();
    const before = (await test.ask('GET', '/v1/sandboxes')).body.length;
    await test.agent[Symbol.asyncDispose]();
    for (const [method, path, body] of [
      ['POST', '/v1/sandboxes', {}],
      ['POST', `/v1/sandboxes/${id}/exec`, { cmd: 'true' }],
      ['POST', `/v1/sandboxes/${id}/files/read`, { path: '/x' }],
      ['POST', `/v1/sandboxes/${id}/pause`, undefined],
      ['GET', '/readyz', undefined],
    ] as const) {
      const answer = await test.ask(method, path, body);
      assert.equal(answer.status, 503, `${path} ${JSON.stringify(answer.body)}`);
      assert.equal(answer.body.error.message, 'the host agent cannot be reached');
    }
    assert.equal((await test.ask('GET', '/v1/sandboxes')).body.length, before);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'pausing');
    await test.agent.reopen();
    await until(async () => (await test.ask('GET', `/v1/sandboxes/${id}`)).body.status === 'running');
  });
});
