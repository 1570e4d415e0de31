import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { SANDBOX_ID } from '@thaw/api';
import { ThrowawayCluster } from '../db/throwaway.ts';
import { TestPlane } from '../testing.ts';

describe('sandboxes', () => {
  let cluster: ThrowawayCluster;
  let test: TestPlane;
  before(async () => {
    cluster = await ThrowawayCluster.start();
    test = await TestPlane.start(cluster);
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
    await cluster?.[Symbol.asyncDispose]();
  });

  it('go through create, get, exec, pause, resume and destroy', async () => {
    const created = await test.ask('POST', '/v1/sandboxes', {
      vcpus: 2,
      memory_mb: 256,
      metadata: { user: 'ann' },
    });
    assert.equal(created.status, 201, JSON.stringify(created.body));
    const { id } = created.body;
    assert.match(id, SANDBOX_ID);
    assert.equal(created.body.status, 'running');
    assert.equal(created.body.template, 'minimal');
    assert.equal(created.body.disk_mb, 4096);
    assert.deepEqual(created.body.metadata, { user: 'ann' });
    assert.deepEqual(created.body.timings_ms, { 'create:boot': 1.5 });

    const run = await test.ask('POST', `/v1/sandboxes/${id}/exec`, { cmd: 'echo', args: ['hello'] });
    assert.equal(run.status, 200);
    assert.equal(run.body.stdout, 'hello\n');

    const paused = await test.ask('POST', `/v1/sandboxes/${id}/pause`);
    assert.equal(paused.status, 200, JSON.stringify(paused.body));
    assert.equal(paused.body.status, 'paused');
    assert.equal(paused.body.host_ip, undefined);
    assert.equal(paused.body.build.generation, 0);
    assert.equal(paused.body.build.stored_bytes, 4096);

    const refused = await test.ask('POST', `/v1/sandboxes/${id}/exec`, { cmd: 'true' });
    assert.equal(refused.status, 409);
    assert.equal(refused.body.error.code, 'invalid_state');
    assert.match(refused.body.error.message, /paused/);

    const resumed = await test.ask('POST', `/v1/sandboxes/${id}/resume`, {});
    assert.equal(resumed.body.status, 'running');
    assert.equal(resumed.body.started_at, created.body.started_at);

    assert.equal((await test.ask('DELETE', `/v1/sandboxes/${id}`)).status, 204);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'stopped');
    assert.equal((await test.ask('DELETE', `/v1/sandboxes/${id}`)).status, 204);
    assert.equal(test.agent.sandboxes.size, 0);
  });
});
