import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { ThawError } from '@thaw/api';
import { type Sample, SampleSchema } from '@thaw/api/rpc';
import { TestPlane } from '../../testing.ts';

const MIB = 2 ** 20;
const T0 = 1_700_000_000;

const sampleAt = (unixMs: number): Sample =>
  create(SampleSchema, {
    ...{ unixMs: BigInt(unixMs), cpuCount: 2, cpuUsedPct: 12.34 },
    ...{ memUsedBytes: BigInt(100 * MIB), memTotalBytes: BigInt(512 * MIB), memCacheBytes: 5n },
    ...{ diskUsedBytes: BigInt(900 * MIB), diskTotalBytes: BigInt(4096 * MIB) },
  });

describe('metrics of the E2B API', () => {
  let test: TestPlane;
  let id: string;
  before(async () => {
    test = await TestPlane.start();
    id = await test.createSandbox({ timeout_sec: 1 });
    test.agent.samples.set(
      id,
      [0, 5, 10].map((sec) => sampleAt((T0 + sec) * 1000 + 250)),
    );
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const times = async (query = ''): Promise<number[]> => {
    const { status, body } = await test.ask('GET', `/sandboxes/${id}/metrics${query}`);
    assert.equal(status, 200, JSON.stringify(body));
    return body.map(({ timestampUnix }: { timestampUnix: number }) => timestampUnix - T0);
  };

  it('are what the host sampled, oldest first', async () => {
    const { body } = await test.ask('GET', `/sandboxes/${id}/metrics`);
    assert.equal(body.length, 3);
    assert.deepEqual(body[0], {
      ...{ timestamp: new Date(T0 * 1000 + 250).toISOString(), timestampUnix: T0 },
      ...{ cpuCount: 2, cpuUsedPct: 12.34 },
      ...{ memUsed: 100 * MIB, memTotal: 512 * MIB, memCache: 5, diskUsed: 900 * MIB, diskTotal: 4096 * MIB },
    });
    assert.deepEqual(await times(), [0, 5, 10]);
    assert.deepEqual(await times(`?start=${T0}&end=${T0 + 5}`), [0, 5]);
    assert.deepEqual(await times(`?start=${T0 + 1}`), [5, 10]);
    assert.deepEqual(await times(`?start=${(T0 + 1) * 1000}&end=${(T0 + 5) * 1000}`), [5], 'milliseconds');
    assert.deepEqual(await times(`?end=${T0 + 9}`), [0, 5]);
    assert.deepEqual(await times('?start=0&end=1'), []);
    assert.deepEqual(await times(`?end=0`), []);
  });

  it('neither wake nor use a sandbox', async () => {
    const sleeper = await test.createSandbox({ auto_resume: true });
    await test.ask('POST', `/v1/sandboxes/${sleeper}/pause`);
    const before = (await test.ask('GET', `/v1/sandboxes/${sleeper}`)).body;
    assert.deepEqual((await test.ask('GET', `/sandboxes/${sleeper}/metrics`)).body, []);
    await test.running.plane.activity.flush();
    assert.deepEqual((await test.ask('GET', `/v1/sandboxes/${sleeper}`)).body, before);
    assert.ok(!test.running.plane.activity.has(sleeper));
  });

  it('come for several at once, as far as they are there', async () => {
    const other = await test.createSandbox();
    const ids = [id, other, 'sbaaaaaaaaaaaaaaaaaaaa'].join(',');
    const { status, body } = await test.ask('GET', `/sandboxes/metrics?sandbox_ids=${ids}`);
    assert.equal(status, 200);
    assert.deepEqual(Object.keys(body.sandboxes), [id]);
    assert.equal(body.sandboxes[id].timestampUnix, T0 + 10);
    for (const query of ['', '?sandbox_ids=', `?sandbox_ids=${Array(101).fill('x').join(',')}`])
      assert.equal((await test.ask('GET', `/sandboxes/metrics${query}`)).status, 400, query);
  });

  it('refuse what makes no sense', async () => {
    for (const query of ['start=x', 'start=-1', 'start=5&end=4', 'end=1e99'])
      assert.equal((await test.ask('GET', `/sandboxes/${id}/metrics?${query}`)).status, 400, query);
    assert.equal((await test.ask('GET', '/sandboxes/sbaaaaaaaaaaaaaaaaaaaa/metrics')).status, 404);
    test.agent.failNext('getSamples', new ThawError('unavailable', 'the host is away'));
    const away = await test.ask('GET', `/sandboxes/${id}/metrics`);
    assert.deepEqual([away.status, away.body], [503, { code: 503, message: 'the host is away' }]);
    await test.ask('DELETE', `/sandboxes/${id}`);
    assert.equal((await test.ask('GET', `/sandboxes/${id}/metrics`)).status, 404);
  });
});
