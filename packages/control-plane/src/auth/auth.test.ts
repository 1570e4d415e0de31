import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Answer, TestPlane } from '../testing.ts';
import { revokeKey } from './keys.ts';

describe('keys and quotas', () => {
  let test: TestPlane;
  before(async () => {
    test = await TestPlane.start();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  /** A request with another key than the test's own. */
  const as = (key: string, method: string, path: string, body?: unknown) =>
    test.ask(method, path, body, { 'X-API-Key': key });
  const makeKey = async (wish: object = {}) => {
    const { status, body } = await test.ask('POST', '/v1/keys', { name: 'ci', ...wish });
    assert.equal(status, 201, JSON.stringify(body));
    return body;
  };
  const refused = ({ status, body }: Answer, code: string, message: RegExp) => {
    assert.equal(body.error?.code, code, `${status} ${JSON.stringify(body)}`);
    assert.match(body.error.message, message);
  };

  it('makes keys that only their own answer shows', async () => {
    const made = await makeKey({ name: 'build "farm"', quota: { sandboxes: 3 } });
    assert.match(made.key, /^e2b_[0-9a-f]{40}$/);
    assert.ok(made.key.startsWith(made.prefix));
    assert.deepEqual(made.quota, { sandboxes: 3, vcpus: null, memory_mb: null, disk_mb: null });
    assert.equal((await as(made.key, 'GET', '/v1/sandboxes')).status, 200);
    const listed = await test.ask('GET', '/v1/keys');
    assert.ok(listed.body.some((key: { id: string }) => key.id === made.id));
    assert.doesNotMatch(JSON.stringify(listed.body), new RegExp(made.key));
  });

  it('lets only administrators manage keys and quotas', async () => {
    const { key, id } = await makeKey();
    for (const [method, path, body] of [
      ['POST', '/v1/keys', { name: 'x' }],
      ['GET', '/v1/keys', undefined],
      ['PATCH', `/v1/keys/${id}`, { quota: { sandboxes: null } }],
      ['DELETE', `/v1/keys/${id}`, undefined],
      ['PATCH', '/v1/team', { quota: { sandboxes: 1 } }],
    ] as const) {
      const answer = await as(key, method, path, body);
      assert.equal(answer.status, 403, `${method} ${path}`);
      refused(answer, 'forbidden', /may not manage/);
    }
    assert.equal((await as(key, 'GET', '/v1/team')).status, 200);
    const second = await makeKey({ admin: true });
    assert.equal((await as(second.key, 'GET', '/v1/keys')).status, 200);
    await test.ask('DELETE', `/v1/keys/${second.id}`);
  });

  it('refuses what is no key, no name and no quota', async () => {
    for (const body of [
      {},
      { name: '' },
      { name: 'x'.repeat(65) },
      { name: 'a\0b' },
      { name: 'x', admin: 'yes' },
      { name: 'x', quota: { sandboxes: -1 } },
      { name: 'x', quota: { sandboxes: 1.5 } },
      { name: 'x', quota: { sandboxes: 2 ** 31 } },
      { name: 'x', quota: { cpus: 1 } },
      { name: 'x', more: 1 },
    ]) {
      const answer = await test.ask('POST', '/v1/keys', body);
      assert.equal(answer.status, 400, JSON.stringify(body));
    }
    for (const id of ['nosuch', 'key_0000000000000000', '%00', "'--"]) {
      assert.equal((await test.ask('DELETE', `/v1/keys/${id}`)).status, 404, id);
      assert.equal((await test.ask('PATCH', `/v1/keys/${id}`, {})).status, 404, id);
    }
  });

  it('refuses a revoked key from then on, and keeps what it made', async () => {
    const { key, id } = await makeKey();
    const { body: sandbox } = await as(key, 'POST', '/v1/sandboxes', {});
    assert.equal((await test.ask('DELETE', `/v1/keys/${id}`)).status, 204);
    assert.equal((await test.ask('DELETE', `/v1/keys/${id}`)).status, 204);
    assert.equal((await as(key, 'GET', '/v1/sandboxes')).status, 401);
    refused(await test.ask('PATCH', `/v1/keys/${id}`, { name: 'again' }), 'invalid_state', /revoked/);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${sandbox.id}`)).body.status, 'running');
    assert.ok(!(await test.ask('GET', '/v1/keys')).body.some((one: { id: string }) => one.id === id));
    await test.ask('DELETE', `/v1/sandboxes/${sandbox.id}`);
  });

  it('never revokes the last administrator, also when all are revoked at once', async () => {
    const others = await Promise.all([1, 2, 3].map(() => makeKey({ admin: true })));
    const own = (await test.ask('GET', '/v1/keys')).body.find((key: { prefix: string }) =>
      test.key.startsWith(key.prefix),
    );
    const ids = [own.id, ...others.map(({ id }) => id)];
    const results = await test.withDatabase((db) =>
      Promise.allSettled(ids.map((id) => revokeKey(db, 'default', id, { operator: true }))),
    );
    const kept = results.filter((result) => result.status === 'rejected');
    assert.deepEqual(
      kept.map(({ reason }) => reason.kind),
      ['conflict'],
    );
    const left = await test.withDatabase((db) =>
      db
        .selectFrom('api_keys')
        .select('id')
        .where('admin', '=', true)
        .where('revoked_at', 'is', null)
        .execute(),
    );
    assert.equal(left.length, 1);
    // The test goes on as it began.
    await test.withDatabase((db) =>
      db.updateTable('api_keys').set({ revoked_at: null }).where('id', '=', own.id).execute(),
    );
    for (const { id } of others) await test.ask('DELETE', `/v1/keys/${id}`);
  });

  it('holds a quota against twenty creates at once', async () => {
    const { key, id } = await makeKey({ name: 'small', quota: { sandboxes: 5 } });
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => as(key, 'POST', '/v1/sandboxes', { vcpus: 1 })),
    );
    const made = answers.filter(({ status }) => status === 201);
    assert.equal(made.length, 5);
    for (const answer of answers.filter(({ status }) => status !== 201)) {
      assert.equal(answer.status, 429);
      refused(answer, 'exhausted', /key small.*sandboxes: the most is 5, this would make 6/);
    }
    const rows = await test.withDatabase((db) =>
      db.selectFrom('sandboxes').select('id').where('key_id', '=', id).execute(),
    );
    assert.equal(rows.length, 5);
    // What is destroyed is given back; a create that fails on the host is, too.
    await test.ask('DELETE', `/v1/sandboxes/${made[0]!.body.id}`);
    test.agent.failNext('createSandbox', new Error('no'));
    assert.notEqual((await as(key, 'POST', '/v1/sandboxes', {})).status, 201);
    assert.equal((await as(key, 'POST', '/v1/sandboxes', {})).status, 201);
    assert.equal((await as(key, 'POST', '/v1/sandboxes', {})).status, 429);
    // Others are not held by it, and lifting it helps at once.
    await test.ask('DELETE', `/v1/sandboxes/${await test.createSandbox()}`);
    await test.ask('PATCH', `/v1/keys/${id}`, { quota: { sandboxes: 6 } });
    assert.equal((await as(key, 'POST', '/v1/sandboxes', {})).status, 201);
    await destroyAll();
  });

  it('counts CPU and memory of what has a VM, disk of what there is', async () => {
    const quota = { vcpus: 2, memory_mb: 1024, disk_mb: 8192 };
    const { key, id } = await makeKey({ name: 'sized', quota });
    const first = await as(key, 'POST', '/v1/sandboxes', { vcpus: 2, memory_mb: 1024, disk_mb: 4096 });
    assert.equal(first.status, 201);
    refused(
      await as(key, 'POST', '/v1/sandboxes', { vcpus: 1, memory_mb: 512, disk_mb: 2048 }),
      'exhausted',
      /vcpus: the most is 2, this would make 3; memory_mb: the most is 1024, this would make 1536/,
    );
    const usage = async () =>
      (await test.ask('GET', '/v1/keys')).body.find((one: { id: string }) => one.id === id).usage;
    assert.deepEqual(await usage(), { sandboxes: 1, vcpus: 2, memory_mb: 1024, disk_mb: 4096 });
    assert.equal((await as(key, 'POST', `/v1/sandboxes/${first.body.id}/pause`)).status, 200);
    assert.deepEqual(await usage(), { sandboxes: 1, vcpus: 0, memory_mb: 0, disk_mb: 4096 });
    const second = await as(key, 'POST', '/v1/sandboxes', { vcpus: 1, disk_mb: 4096 });
    assert.equal(second.status, 201);
    refused(
      await as(key, 'POST', '/v1/sandboxes', { disk_mb: 1024 }),
      'exhausted',
      /disk_mb: the most is 8192/,
    );
    // A resume takes again what the pause gave back.
    const resume = () => as(key, 'POST', `/v1/sandboxes/${first.body.id}/resume`);
    const answer = await resume();
    assert.equal(answer.status, 429);
    refused(answer, 'exhausted', /vcpus: the most is 2, this would make 3/);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${first.body.id}`)).body.status, 'paused');
    await test.ask('POST', `/v1/sandboxes/${second.body.id}/pause`);
    assert.equal((await resume()).status, 200);
    await destroyAll();
  });

  it("holds a team's quota over all of its keys", async () => {
    const [one, two] = [await makeKey(), await makeKey()];
    const team = await test.ask('PATCH', '/v1/team', { quota: { sandboxes: 4 } });
    assert.equal(team.body.quota.sandboxes, 4);
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, index) => as((index % 2 ? one : two).key, 'POST', '/v1/sandboxes', {})),
    );
    assert.equal(answers.filter(({ status }) => status === 201).length, 4);
    const late = answers.find(({ status }) => status !== 201)!;
    refused(late, 'exhausted', /team default.*sandboxes: the most is 4/);
    assert.equal((await as(one.key, 'GET', '/v1/team')).body.usage.sandboxes, 4);
    await test.ask('PATCH', '/v1/team', { quota: { sandboxes: null } });
    assert.equal((await as(one.key, 'POST', '/v1/sandboxes', {})).status, 201);
    await destroyAll();
  });

  async function destroyAll(): Promise<void> {
    const { body } = await test.ask('GET', '/v1/sandboxes');
    for (const { id } of body) await test.ask('DELETE', `/v1/sandboxes/${id}`);
  }
});
