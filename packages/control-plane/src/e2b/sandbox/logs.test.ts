import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { TestPlane } from '../../testing.ts';

const ENDED = '2026-01-02T03:04:05.678Z';

describe('logs of the E2B API', () => {
  let test: TestPlane;
  let id: string;
  let started: string;
  before(async () => {
    test = await TestPlane.start();
    id = await test.createSandbox();
    started = (await test.ask('GET', `/v1/sandboxes/${id}`)).body.started_at;
    test.agent.logs.set(id, `first\r\nsecond\n--- ended ${ENDED}\nthird\n--- ended by hand\n\n`);
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const lines = async (query = ''): Promise<string[]> => {
    const { status, body } = await test.ask('GET', `/v2/sandboxes/${id}/logs${query}`);
    assert.equal(status, 200, JSON.stringify(body));
    return body.logs.map(({ message }: { message: string }) => message);
  };

  it('are the console, each line with the time of its run', async () => {
    const { status, body } = await test.ask('GET', `/sandboxes/${id}/logs`);
    assert.equal(status, 200);
    assert.deepEqual(body.logs, [
      { timestamp: ENDED, line: 'first' },
      { timestamp: ENDED, line: 'second' },
      { timestamp: started, line: 'third' },
      { timestamp: started, line: '--- ended by hand' },
    ]);
    assert.deepEqual(body.logEntries[0], { timestamp: ENDED, message: 'first', level: 'info', fields: {} });
    const later = await test.ask('GET', `/sandboxes/${id}/logs?start=${Date.parse(ENDED) + 1}&limit=1`);
    assert.deepEqual(later.body.logs, [{ timestamp: started, line: 'third' }]);
  });

  it('are read both ways, from a moment on, by text and level', async () => {
    assert.deepEqual(await lines(), ['first', 'second', 'third', '--- ended by hand']);
    assert.deepEqual(await lines('?direction=backward&limit=2'), ['--- ended by hand', 'third']);
    assert.deepEqual(await lines(`?direction=backward&cursor=${Date.parse(ENDED)}`), ['second', 'first']);
    assert.deepEqual(await lines(`?cursor=${Date.parse(started)}&search=hir`), ['third']);
    assert.deepEqual(await lines('?level=info&search=first'), ['first']);
    assert.deepEqual(await lines('?level=error'), []);
  });

  it('refuse what makes no sense', async () => {
    for (const query of ['limit=x', 'limit=1001', 'direction=up', 'level=loud', 'cursor=-1'])
      assert.equal((await test.ask('GET', `/v2/sandboxes/${id}/logs?${query}`)).status, 400, query);
    for (const path of ['/sandboxes', '/v2/sandboxes'])
      assert.equal((await test.ask('GET', `${path}/sbaaaaaaaaaaaaaaaaaaaa/logs`)).status, 404);
  });
});
