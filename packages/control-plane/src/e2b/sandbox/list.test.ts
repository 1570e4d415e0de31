import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { TestPlane } from '../../testing.ts';

/** As the SDKs write it: each part, then the form; the query's own encoding is added by the URL. */
function filterOf(metadata: Record<string, string>): string {
  const pairs = Object.entries(metadata).map(([key, value]) => [
    encodeURIComponent(key),
    encodeURIComponent(value),
  ]);
  return new URLSearchParams(pairs as [string, string][]).toString();
}

describe('lists of the E2B API', () => {
  let test: TestPlane;
  const ids: string[] = [];
  before(async () => {
    test = await TestPlane.start();
    for (const [index, templateID] of ['base', 'minimal', 'base', 'base', 'minimal'].entries()) {
      const metadata = { index: String(index), 'a b': index % 2 === 0 ? 'c&d=100%+' : 'other' };
      const made = await test.ask('POST', '/v2/sandboxes', { templateID, metadata });
      ids.push(made.body.sandboxID);
      // The lists go by milliseconds.
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
    await test.ask('POST', `/sandboxes/${ids[1]}/pause`);
  });
  after(() => test[Symbol.asyncDispose]());

  const list = async (query: Record<string, string> = {}, path = '/v2/sandboxes') => {
    const answer = await test.ask('GET', `${path}?${new URLSearchParams(query)}`);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    const found = answer.body.map(({ sandboxID }: { sandboxID: string }) => ids.indexOf(sandboxID));
    return { found, body: answer.body, next: answer.headers.get('x-next-token') };
  };

  it('hold what runs or is paused, by the last start', async () => {
    const { found, body, next } = await list();
    assert.deepEqual(found, [4, 3, 2, 1, 0]);
    assert.equal(next, null);
    const { startedAt, endAt, ...rest } = body[3];
    assert.ok(new Date(endAt) > new Date(startedAt));
    assert.deepEqual(rest, {
      sandboxID: ids[1],
      templateID: 'minimal',
      clientID: '00000000',
      envdVersion: '0.6.13',
      alias: 'minimal',
      cpuCount: 1,
      memoryMB: 512,
      diskSizeMB: 4096,
      metadata: { index: '1', 'a b': 'other' },
      state: 'paused',
    });
    assert.deepEqual((await list({ order: 'asc' })).found, [0, 1, 2, 3, 4]);
    assert.deepEqual((await list({}, '/sandboxes')).found, [4, 3, 2, 0]);
  });

  it('are filtered by state, template, start and metadata', async () => {
    assert.deepEqual((await list({ state: 'paused' })).found, [1]);
    assert.deepEqual((await list({ state: 'running' })).found, [4, 3, 2, 0]);
    assert.deepEqual((await list({ state: 'running,paused' })).found, [4, 3, 2, 1, 0]);
    assert.deepEqual((await list({ template: 'minimal' })).found, [4, 1]);
    assert.deepEqual((await list({ template: 'unknown' })).found, []);
    assert.deepEqual((await list({ template: 'default/base' })).found, [3, 2, 0]);
    assert.deepEqual((await list({ template: 'others/base' })).found, []);
    const { body } = await list();
    assert.deepEqual((await list({ startedAfter: body[1].startedAt })).found, [4, 3]);
    assert.deepEqual((await list({ metadata: filterOf({ 'a b': 'c&d=100%+' }) })).found, [4, 2, 0]);
    assert.deepEqual((await list({ metadata: filterOf({ 'a b': 'c&d=100%+', index: '2' }) })).found, [2]);
    assert.deepEqual((await list({ metadata: 'index=3' })).found, [3]);
    assert.deepEqual((await list({ metadata: 'index=3' }, '/sandboxes')).found, [3]);
  });

  it('come in pages, the last of which has no token', async () => {
    for (const order of ['asc', 'desc']) {
      const all: number[] = [];
      const sizes: number[] = [];
      let next: string | null = '';
      while (next !== null) {
        const page = await list({ limit: '2', order, nextToken: next });
        all.push(...page.found);
        sizes.push(page.found.length);
        next = page.next;
      }
      assert.deepEqual(all, order === 'asc' ? [0, 1, 2, 3, 4] : [4, 3, 2, 1, 0]);
      assert.deepEqual(sizes, [2, 2, 1]);
    }
    assert.equal((await list({ limit: '5' })).next, null);
  });

  it('refuse what they do not understand', async () => {
    for (const query of [
      'state=dead',
      'order=up',
      'limit=0',
      'limit=101',
      'nextToken=x',
      'startedAfter=now',
      'template=base:v1',
      'metadata=%25zz',
    ]) {
      const { status, body } = await test.ask('GET', `/v2/sandboxes?${query}`);
      assert.deepEqual([status, body.code, typeof body.message], [400, 400, 'string'], query);
    }
  });
});
