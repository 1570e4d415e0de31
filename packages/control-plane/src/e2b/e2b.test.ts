import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { TestPlane } from '../testing.ts';

describe('the E2B API', () => {
  let plane: TestPlane;
  before(async () => {
    plane = await TestPlane.start({ domain: 'sbx.localhost:3443' });
  });
  after(() => plane[Symbol.asyncDispose]());

  it('answers every error with the status as a code, and in the shape of /v1 elsewhere', async () => {
    const missing = await plane.ask('GET', '/sandboxes/sb00000000000000000000');
    assert.deepEqual(
      [missing.status, missing.body],
      [404, { code: 404, message: 'sandbox sb00000000000000000000 does not exist' }],
    );
    const stranger = await plane.ask('GET', '/v2/sandboxes', undefined, { 'X-API-Key': 'e2b_00' });
    assert.deepEqual(
      [stranger.status, stranger.body],
      [401, { code: 401, message: 'the API key is not valid' }],
    );
    const method = await plane.ask('PUT', '/sandboxes/x', {});
    assert.deepEqual([method.status, method.body.code], [405, 405]);
    const path = await plane.ask('GET', '/sandboxes/x/nothing');
    assert.deepEqual(
      [path.status, path.body],
      [404, { code: 404, message: 'no such path: /sandboxes/x/nothing' }],
    );
    const encoding = await plane.ask('GET', '/templates/%zz/tags');
    assert.deepEqual([encoding.status, encoding.body.code], [400, 400]);
    const native = await plane.ask('GET', '/v1/sandboxes/sb00000000000000000000');
    assert.deepEqual(Object.keys(native.body), ['error']);
  });

  it('destroys a sandbox, which is gone then', async () => {
    const id = await plane.createSandbox();
    const seen = await plane.ask('GET', `/sandboxes/${id}`);
    assert.equal(seen.status, 200);
    assert.equal(seen.body.state, 'running');
    const killed = await plane.ask('DELETE', `/sandboxes/${id}`);
    assert.deepEqual([killed.status, killed.body], [204, '']);
    assert.equal((await plane.ask('DELETE', `/sandboxes/${id}`)).status, 404);
  });

  it('is not part of the description of /v1', async () => {
    const { body } = await plane.ask('GET', '/openapi.yaml');
    assert.doesNotMatch(body, /^ {2}\/sandboxes/m);
  });
});
