import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { TestPlane } from '../testing.ts';

/** The value of one line, 0 if there is none. Labels in any order. */
function sampleOf(text: string, name: string, labels: Record<string, string> = {}): number {
  for (const line of text.split('\n')) {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (match?.[1] !== name) continue;
    const found = Object.fromEntries(
      [...(match[2] ?? '').matchAll(/(\w+)="([^"]*)"/g)].map((m) => [m[1], m[2]]),
    );
    if (Object.entries(labels).every(([key, value]) => found[key] === value)) return Number(match[3]);
  }
  return 0;
}

describe('metrics', () => {
  let test: TestPlane;
  before(async () => {
    test = await TestPlane.start();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const scrape = async (): Promise<string> => {
    const { status, body } = await test.ask('GET', '/metrics');
    assert.equal(status, 200);
    return body;
  };

  it('counts what was done', async () => {
    const before = await scrape();
    const id = await test.createSandbox();
    await test.ask('POST', `/v1/sandboxes/${id}/pause`);
    test.agent.failNext('resumeSandbox', new Error('no'));
    await test.ask('POST', `/v1/sandboxes/${id}/resume`);
    for (let round = 0; round < 3; round++) await test.ask('GET', `/v1/sandboxes/${id}`);
    await test.ask('GET', '/v1/nosuch');
    const now = await scrape();
    const grown = (name: string, labels: Record<string, string>) =>
      sampleOf(now, name, labels) - sampleOf(before, name, labels);

    assert.equal(grown('thaw_verb_ms_count', { verb: 'create', outcome: 'done' }), 1);
    assert.equal(grown('thaw_verb_ms_count', { verb: 'pause', outcome: 'done' }), 1);
    assert.equal(grown('thaw_verb_ms_count', { verb: 'resume', outcome: 'done' }), 0);
    assert.equal(grown('thaw_verb_ms_count', { verb: 'resume', outcome: 'internal' }), 1);
    const get = { method: 'GET', route: '/v1/sandboxes/:id' };
    assert.equal(grown('thaw_http_requests_total', { ...get, status: '200' }), 3);
    assert.equal(grown('thaw_http_request_ms_count', get), 3);
    assert.equal(grown('thaw_http_requests_total', { route: 'none', status: '404' }), 1);
    assert.equal(grown('thaw_sandboxes', { status: 'paused' }), 1);
    assert.equal(sampleOf(now, 'thaw_host_up'), 1);
    assert.equal(sampleOf(now, 'thaw_host_sandboxes'), 1, "the host's figures follow");
    // Nothing is counted for each sandbox: that would never end.
    assert.ok(!now.includes(id));

    await test.ask('DELETE', `/v1/sandboxes/${id}`);
    assert.equal(sampleOf(await scrape(), 'thaw_sandboxes', { status: 'stopped' }), 1);
  });

  it('says that the host is away', async () => {
    test.agent.failNext('getMetrics', new Error('no'));
    const text = await scrape();
    assert.equal(sampleOf(text, 'thaw_host_up'), 0);
    assert.equal(sampleOf(text, 'thaw_host_sandboxes'), 0);
  });

  it('is not for every key', async () => {
    assert.equal((await fetch(`${test.url}/metrics`)).status, 401);
    const made = await test.ask('POST', '/v1/keys', { name: 'worker' });
    assert.equal(made.status, 201);
    const headers = { 'X-API-Key': made.body.key };
    assert.equal((await test.ask('GET', '/metrics', undefined, headers)).status, 403);
  });
});
