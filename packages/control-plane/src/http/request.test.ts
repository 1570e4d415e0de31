import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { ThawError } from '@thaw/api';
import { openLog } from '../log.ts';
import { startControlPlane } from '../start.ts';
import { TestPlane } from '../testing.ts';

describe('request ids', () => {
  let test: TestPlane;
  before(async () => {
    test = await TestPlane.start({ server: true });
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  it('stand in every answer, also in errors', async () => {
    for (const [method, path, status] of [
      ['GET', '/v1/sandboxes', 200],
      ['GET', '/v1/nosuch', 404],
      ['PUT', '/v1/sandboxes', 405],
      ['POST', '/v1/sandboxes', 400],
      ['GET', '/v1/sandboxes/%zz', 400],
      ['GET', '/healthz', 200],
    ] as const) {
      const body = method === 'POST' ? '{"vcpus":"many"}' : undefined;
      const answer = await test.ask(method, path, body, { 'X-Request-Id': `r-${status}` });
      assert.equal(answer.status, status, path);
      assert.equal(answer.headers.get('x-request-id'), `r-${status}`, path);
    }
    const refused = await fetch(`${test.url}/v1/sandboxes`, { headers: { 'X-Request-Id': 'no-key' } });
    assert.equal(refused.status, 401);
    assert.equal(refused.headers.get('x-request-id'), 'no-key');
  });

  it('are made where none was sent or it is not fit for a log', async () => {
    const ids = new Set<string>();
    for (const sent of [undefined, '', 'two words', 'x'.repeat(65), '{"a":1}', '../x']) {
      const headers: Record<string, string> = sent === undefined ? {} : { 'X-Request-Id': sent };
      const answer = await test.ask('GET', '/healthz', undefined, headers);
      const id = answer.headers.get('x-request-id') ?? '';
      assert.match(id, /^[0-9a-f-]{36}$/, String(sent));
      ids.add(id);
    }
    assert.equal(ids.size, 6);
  });

  it('stand in the log, in each line that a request made', async () => {
    const to = new PassThrough();
    let text = '';
    to.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    const own = await startControlPlane(test.config, openLog('info', to));
    try {
      // The host passes on what a guest said.
      for (const kind of ['not_found', 'agent_error', 'invalid_request'] as const) {
        const id = await test.createSandbox();
        test.agent.failNext('exec', new ThawError(kind, 'words of a guest'));
        const answer = await fetch(`${own.url}/v1/sandboxes/${id}/exec`, {
          method: 'POST',
          headers: { 'X-API-Key': test.key },
          body: '{"cmd":"true"}',
        });
        assert.match(await answer.text(), /words of a guest/);
      }
      test.agent.failNext('createSandbox', new Error('no'));
      await fetch(`${own.url}/v1/sandboxes`, {
        method: 'POST',
        headers: { 'X-API-Key': test.key, 'X-Request-Id': 'failing' },
        body: '{}',
      });
    } finally {
      await own[Symbol.asyncDispose]();
    }
    const lines = text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { request_id?: string; msg: string; rpc?: string; status?: number });
    const messages = lines.filter(({ request_id }) => request_id === 'failing');
    assert.ok(messages.some(({ msg, status }) => msg === 'request' && status === 500));
    assert.ok(messages.some(({ msg }) => msg === 'a request failed'));
    assert.ok(
      messages.some(({ rpc }) => rpc === 'create'),
      'what the host client said',
    );
    assert.ok(!text.includes(test.key), 'keys are in no log');
    assert.ok(!text.includes('words of a guest'));
  });
});
