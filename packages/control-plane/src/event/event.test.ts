import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ThrowawayCluster } from '../db/throwaway.ts';
import { TestPlane, until } from '../testing.ts';

describe('events', () => {
  let cluster: ThrowawayCluster;
  let test: TestPlane;
  before(async () => {
    cluster = await ThrowawayCluster.start();
    test = await TestPlane.start({ cluster });
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
    await cluster?.[Symbol.asyncDispose]();
  });

  const eventsOf = async (id: string) => (await test.ask('GET', `/v1/sandboxes/${id}/events`)).body;

  it('says who did what, how long it took and what came of it', async () => {
    const id = await test.createSandbox();
    await test.ask('POST', `/v1/sandboxes/${id}/pause`, undefined, { 'X-Request-Id': 'a-pause' });
    await test.ask('POST', `/v1/sandboxes/${id}/resume`);
    const events = await eventsOf(id);
    assert.deepEqual(
      events.map(({ verb, outcome }: { verb: string; outcome: string }) => [verb, outcome]),
      [
        ['resume', 'done'],
        ['pause', 'done'],
        ['create', 'done'],
      ],
    );
    const [, pause, create] = events;
    assert.equal(create.actor, test.key.slice(0, 8));
    assert.deepEqual(create.timings_ms, { 'create:boot': 1.5 });
    assert.equal(pause.request_id, 'a-pause');
    for (const { ms, at, request_id } of events) {
      assert.ok(ms >= 0 && Number.isFinite(ms));
      assert.ok(!Number.isNaN(Date.parse(at)));
      assert.match(request_id, /^[A-Za-z0-9_-]+$/);
    }
  });

  it('keeps a failure with its reason, and the history of a sandbox that is no more', async () => {
    const id = await test.createSandbox();
    test.agent.failNext('pauseSandbox', new Error('no'));
    assert.notEqual((await test.ask('POST', `/v1/sandboxes/${id}/pause`)).status, 200);
    await test.ask('DELETE', `/v1/sandboxes/${id}`);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'stopped');
    const [destroy, pause] = await eventsOf(id);
    assert.equal(destroy.verb, 'destroy');
    assert.equal(pause.verb, 'pause');
    assert.notEqual(pause.outcome, 'done');
    assert.ok(pause.message.length > 0);
  });

  it('says what was changed, and what Thaw did of its own accord', async () => {
    const id = await test.createSandbox();
    await test.ask('PATCH', `/v1/sandboxes/${id}`, { auto_resume: false, metadata: { app: 'x' } });
    const [update] = await eventsOf(id);
    assert.equal(update.verb, 'update');
    assert.equal(update.actor, test.key.slice(0, 8));
    assert.match(update.message, /auto_resume, metadata/);
    // The host says that its VM is dead; the start of a control plane is a round of reconcile.
    const info = test.agent.sandboxes.get(id)!;
    info.status = 'error';
    info.errorReason = 'the VM ended';
    await test.restart();
    await until(async () => (await eventsOf(id))[0].verb === 'settle');
    const [settle] = await eventsOf(id);
    assert.equal(settle.actor, 'thaw');
    assert.match(settle.message, /was running.*the VM ended/);
    assert.equal(settle.request_id, undefined);
  });

  it('leaves nothing of a create that failed', async () => {
    test.agent.failNext('createSandbox', new Error('no'));
    assert.notEqual((await test.ask('POST', '/v1/sandboxes', {})).status, 201);
    const ids = (await test.ask('GET', '/v1/sandboxes')).body.map(({ id }: { id: string }) => id);
    const known = new Set(ids);
    await until(async () => {
      const rows = await test.running.plane.db.selectFrom('events').selectAll().execute();
      return rows.every(
        ({ sandbox_id, verb, outcome }) => verb !== 'create' || outcome === 'done' || known.has(sandbox_id),
      );
    });
  });

  it('comes in pages, and only to the team that the sandbox is of', async () => {
    const id = await test.createSandbox();
    for (let round = 0; round < 3; round++) {
      await test.ask('POST', `/v1/sandboxes/${id}/pause`);
      await test.ask('POST', `/v1/sandboxes/${id}/resume`);
    }
    const seen: string[] = [];
    let token: string | null = '';
    while (token !== null) {
      const query = new URLSearchParams({ limit: '2', ...(token !== '' && { next_token: token }) });
      const answer = await test.ask('GET', `/v1/sandboxes/${id}/events?${query}`);
      assert.equal(answer.status, 200);
      seen.push(...answer.body.map((event: { id: string }) => event.id));
      token = answer.headers.get('x-next-token');
    }
    assert.equal(seen.length, 7);
    assert.equal(new Set(seen).size, 7);
    assert.deepEqual(seen, seen.toSorted().reverse());
    const stranger = `/v1/sandboxes/sb${'a'.repeat(20)}/events`;
    assert.equal((await test.ask('GET', stranger)).status, 404);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}/events?limit=0`)).status, 400);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}/events?next_token=x`)).status, 400);
  });

  it('shows what a console said', async () => {
    const id = await test.createSandbox();
    const logs = await test.ask('GET', `/v1/sandboxes/${id}/logs`);
    assert.equal(logs.status, 200);
    assert.match(logs.headers.get('content-type') ?? '', /^text\/plain/);
    assert.equal(logs.body, `${id} booted\n`);
    await test.ask('DELETE', `/v1/sandboxes/${id}`);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}/logs`)).status, 404);
  });
});
