import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { newApiKey, ThawError } from '@thaw/api';
import { jsonOf, TestPlane } from '../testing.ts';
import { methodsOf } from './methods.ts';

describe('HTTP', () => {
  let test: TestPlane;
  before(async () => {
    test = await TestPlane.start();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  it('asks for a key everywhere but at the health paths', async () => {
    for (const path of ['/healthz', '/health', '/readyz']) {
      assert.equal((await fetch(test.url + path)).status, 200, path);
    }
    const keys = ['', 'x', newApiKey(), test.key.toUpperCase(), `${test.key}0`, "' or 1=1 --", 'e2b_%00'];
    for (const key of [undefined, ...keys]) {
      for (const path of ['/v1/sandboxes', '/v1/snapshots', '/v1/nosuch', '/']) {
        const response = await fetch(
          test.url + path,
          key === undefined ? {} : { headers: { 'X-API-Key': key } },
        );
        assert.equal(response.status, 401, `${key} ${path}`);
        const body = await jsonOf(response);
        assert.equal(body.error.code, 'unauthenticated');
        assert.doesNotMatch(JSON.stringify(body), /e2b_[0-9a-f]{8}/);
      }
    }
    const bearer = await fetch(`${test.url}/v1/sandboxes`, {
      headers: { Authorization: `Bearer ${test.key}` },
    });
    assert.equal(bearer.status, 200);
  });

  it('keeps keys only as hashes', async () => {
    const rows = await test.running.plane.db.selectFrom('api_keys').selectAll().execute();
    assert.equal(rows.length, 1);
    assert.doesNotMatch(JSON.stringify(rows), new RegExp(test.key));
    assert.match(rows[0]!.hash, /^[0-9a-f]{64}$/);
  });

  it('tells unknown paths from wrong methods', async () => {
    for (const path of ['/', '/v1', '/v1/nosuch', '/v4/sandboxes', '/v1/sandboxes/x/y']) {
      const answer = await test.ask('GET', path);
      assert.equal(answer.status, 404, path);
      assert.equal(answer.body.error.code, 'not_found');
    }
    for (const [method, path] of [
      ['PUT', '/v1/sandboxes'],
      ['DELETE', '/v1/sandboxes'],
      ['POST', '/v1/sandboxes/x'],
      ['GET', '/v1/sandboxes/x/pause'],
      ['PATCH', '/v1/snapshots/x'],
    ] as const) {
      const answer = await test.ask(method, path);
      assert.equal(answer.status, 405, `${method} ${path}`);
      assert.equal(answer.body.error.code, 'invalid_request');
    }
    const bad = await test.ask('GET', '/v1/sandboxes/%zz');
    assert.equal(bad.status, 400);
    assert.equal(bad.body.error.code, 'invalid_request');
    assert.equal((await test.ask('GET', '/v1/sandboxes/x/exec/stream')).status, 404);
  });

  it('matches paths by their segments', () => {
    const patterns = [{ url: '/v1/a/:id', methods: ['GET', 'HEAD'] }];
    assert.deepEqual(methodsOf(patterns, '/v1/a/x'), ['GET', 'HEAD']);
    assert.deepEqual(methodsOf(patterns, '/v1/a/x/'), ['GET', 'HEAD']);
    assert.deepEqual(methodsOf(patterns, '/v1/a/'), []);
    assert.deepEqual(methodsOf(patterns, '/v1/a/x/y'), []);
  });

  it('limits bodies', async () => {
    const big = await test.ask('POST', '/v1/sandboxes', `{"template":"${'a'.repeat(1024 * 1024)}"}`);
    assert.equal(big.status, 413);
    assert.equal(big.body.error.code, 'too_large');
    const chunked = await fetch(`${test.url}/v1/sandboxes`, {
      method: 'POST',
      headers: { 'X-API-Key': test.key },
      body: ReadableStream.from([Buffer.alloc(2 * 1024 * 1024, 'a')]),
      duplex: 'half',
    } as RequestInit);
    assert.equal(chunked.status, 413);
    assert.equal((await jsonOf(chunked)).error.code, 'too_large');
  });

  it('does not care what a JSON body calls itself', async () => {
    const headers = { 'Content-Type': 'application/x-www-form-urlencoded' };
    const created = await test.ask('POST', '/v1/sandboxes', '{"vcpus":1}', headers);
    assert.equal(created.status, 201);
    await test.ask('DELETE', `/v1/sandboxes/${created.body.id}`);
    const form = new FormData();
    form.set('template', 'minimal');
    const refused = await fetch(`${test.url}/v1/sandboxes`, {
      method: 'POST',
      headers: { 'X-API-Key': test.key },
      body: form,
    });
    assert.equal(refused.status, 400);
    assert.equal((await jsonOf(refused)).error.code, 'invalid_request');
  });

  it('answers what is not HTTP in its own shape', async () => {
    const { hostname, port } = new URL(test.url);
    const socket = connect(Number(port), hostname);
    await once(socket, 'connect');
    socket.write('GARBAGE\r\n\r\n');
    const answer = await text(socket);
    assert.match(answer, /^HTTP\/1.1 400 /);
    assert.match(answer, /"code":"invalid_request"/);
  });

  it('says what is not ready', async () => {
    test.agent.failNext('getHost', new ThawError('unavailable', 'starting'));
    const answer = await test.ask('GET', '/readyz');
    assert.equal(answer.status, 503);
    assert.equal(answer.body.error.code, 'unavailable');
  });
});
