import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { newApiKey, SANDBOX_ID, ThawError } from '@thaw/api';
import { addKey } from '../auth/key.ts';
import { TestPlane, until } from '../testing.ts';

describe('sandboxes', () => {
  let test: TestPlane;
  before(async () => {
    test = await TestPlane.start();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  it('go through create, get, exec, pause, resume and destroy', async () => {
    const created = await test.ask('POST', '/v1/sandboxes', {
      vcpus: 2,
      memory_mb: 256,
      metadata: { user: 'ann' },
      auto_resume: false,
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

    const stats = await test.ask('GET', `/v1/sandboxes/${id}/stats`);
    assert.equal(stats.body.pages_total, 65_536);
    assert.deepEqual(stats.body.pids, { vmm: 1 });

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

  it('refuse what is wrong, and leave no row of it', async () => {
    const before = await rows();
    const cases: [unknown, number, string, RegExp][] = [
      ['{"template":', 400, 'invalid_request', /not valid JSON/],
      ['', 400, 'invalid_request', /body/],
      ['[]', 400, 'invalid_request', /body/],
      ['null', 400, 'invalid_request', /body/],
      ['"minimal"', 400, 'invalid_request', /body/],
      ['{} trailing', 400, 'invalid_request', /JSON/],
      ['{"metadata":{"__proto__":"x"}}', 400, 'invalid_request', /__proto__/],
      [{ vcpus: '2' }, 400, 'invalid_request', /vcpus/],
      [{ vcpus: 0 }, 400, 'invalid_request', /vcpus/],
      [{ vcpus: -1 }, 400, 'invalid_request', /vcpus/],
      [{ vcpus: 1.5 }, 400, 'invalid_request', /vcpus/],
      [{ vcpus: 33 }, 400, 'invalid_request', /vcpus/],
      [{ vcpus: 9 }, 400, 'invalid_request', /vcpus: this host has at most 8/],
      ['{"vcpus":1e400}', 400, 'invalid_request', /vcpus/],
      ['{"vcpus":99999999999999999999}', 400, 'invalid_request', /vcpus/],
      [{ memory_mb: 127 }, 400, 'invalid_request', /memory_mb/],
      [{ memory_mb: 999_999 }, 400, 'invalid_request', /memory_mb: this host has/],
      [{ memory_mb: null }, 400, 'invalid_request', /memory_mb/],
      [{ disk_mb: 65_537 }, 400, 'invalid_request', /disk_mb/],
      [{ disk_mb: 512 }, 400, 'invalid_request', /disk_mb: template minimal needs at least 1024/],
      [{ template: '../etc' }, 400, 'invalid_request', /template/],
      [{ template: '$(touch x)' }, 400, 'invalid_request', /template/],
      [{ template: '' }, 400, 'invalid_request', /template/],
      [{ template: 'a'.repeat(64) }, 400, 'invalid_request', /template/],
      [{ template: 'nosuch' }, 404, 'not_found', /nosuch/],
      [{ env: { 'A=B': 'x' } }, 400, 'invalid_request', /env/],
      [{ env: { A: 'x\0y' } }, 400, 'invalid_request', /NUL/],
      [{ env: { A: 1 } }, 400, 'invalid_request', /env/],
      [{ env: ['A'] }, 400, 'invalid_request', /env/],
      [{ metadata: { a: { b: 'c' } } }, 400, 'invalid_request', /metadata/],
      [{ metadata: { a: '\ud800' } }, 400, 'invalid_request', /Unicode/],
      [{ metadata: { a: '\0' } }, 400, 'invalid_request', /NUL/],
      [{ unknown_field: 1 }, 400, 'invalid_request', /unknown_field/],
      [{ timeout_sec: -1 }, 400, 'invalid_request', /timeout_sec/],
      [{ timeout_sec: 1.5 }, 400, 'invalid_request', /timeout_sec/],
      [{ timeout_sec: 31_536_001 }, 400, 'invalid_request', /timeout_sec/],
      [{ on_timeout: 'freeze' }, 400, 'invalid_request', /on_timeout/],
      [{ auto_resume: 'yes' }, 400, 'invalid_request', /auto_resume/],
      [{ network: { internet: 1 } }, 400, 'invalid_request', /network\.internet/],
      [{ network: { deny: [] } }, 400, 'invalid_request', /deny/],
      [{ network: { deny_out: ['example.org'] } }, 400, 'invalid_request', /network\.deny_out\.0.*IPv4/],
      [{ network: { deny_out: ['192.0.2.1/24'] } }, 400, 'invalid_request', /host bits/],
      [{ network: { allow_out: ['::1'] } }, 400, 'invalid_request', /IPv6/],
      [{ network: { allow_out: ['10.0.0.0/24'] } }, 400, 'invalid_request', /special range/],
      [{ network: { allow_out: ['169.254.169.254'] } }, 400, 'invalid_request', /special range/],
      [{ network: { allow_out: Array(257).fill('192.0.2.1') } }, 400, 'invalid_request', /allow_out/],
    ];
    for (const [body, status, code, message] of cases) {
      const answer = await test.ask('POST', '/v1/sandboxes', body);
      const label = `${JSON.stringify(body)} → ${answer.status} ${JSON.stringify(answer.body)}`;
      assert.equal(answer.status, status, label);
      assert.equal(answer.body.error.code, code, label);
      assert.match(answer.body.error.message, message, label);
      assert.deepEqual(Object.keys(answer.body), ['error']);
    }
    assert.equal(await rows(), before);
    assert.equal(test.agent.sandboxes.size, 0);
  });

  it('answer 404 for ids that never were', async () => {
    for (const id of ['sbaaaaaaaaaaaaaaaaaaaa', 'nosuch', 'sb-12345678', '%00', '..%2f..', 'x'.repeat(200)]) {
      for (const [method, verb] of [
        ['GET', ''],
        ['DELETE', ''],
        ['POST', '/pause'],
        ['POST', '/resume'],
        ['POST', '/exec'],
      ] as const) {
        const answer = await test.ask(
          method,
          `/v1/sandboxes/${id}${verb}`,
          verb === '/exec' ? { cmd: 'true' } : undefined,
        );
        assert.equal(answer.status, 404, `${method} ${id}${verb}: ${JSON.stringify(answer.body)}`);
        assert.equal(answer.body.error.code, 'not_found');
      }
    }
  });

  it('leave no row of a create that failed on the host', async () => {
    const before = await rows();
    test.agent.failNext('createSandbox', new ThawError('exhausted', 'no slot is free'));
    const refused = await test.ask('POST', '/v1/sandboxes', {});
    assert.equal(refused.status, 429);
    assert.equal(refused.body.error.message, 'no slot is free');
    test.agent.failNext('createSandbox', new Error('/run/secret/path exploded at 10.11.0.1'));
    const broken = await test.ask('POST', '/v1/sandboxes', {});
    assert.equal(broken.status, 500);
    assert.doesNotMatch(JSON.stringify(broken.body), /secret|10\.11/);
    assert.equal(await rows(), before);
  });

  it('join the verb under way and refuse another', async () => {
    const id = await test.createSandbox();
    const release = test.agent.hold('pauseSandbox');
    const first = test.ask('POST', `/v1/sandboxes/${id}/pause`);
    await until(() => test.agent.calls.at(-1) === 'pauseSandbox');
    const count = test.agent.count('pauseSandbox');
    const second = test.ask('POST', `/v1/sandboxes/${id}/pause`);
    const other = await test.ask('POST', `/v1/sandboxes/${id}/resume`);
    assert.equal(other.status, 409);
    assert.match(other.body.error.message, /pausing/);
    const status = await test.ask('GET', `/v1/sandboxes/${id}`);
    assert.equal(status.body.status, 'pausing');
    const ended = test.ask('DELETE', `/v1/sandboxes/${id}`);
    release();
    const answers = await Promise.all([first, second]);
    assert.deepEqual(
      answers.map((answer) => [answer.status, answer.body.status]),
      [
        [200, 'paused'],
        [200, 'paused'],
      ],
    );
    assert.equal(test.agent.count('pauseSandbox'), count);
    assert.equal((await ended).status, 204);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'stopped');
    assert.equal((await test.ask('POST', `/v1/sandboxes/${id}/pause`)).status, 409);
  });

  it('finish a verb whose client went away', async () => {
    const id = await test.createSandbox();
    const release = test.agent.hold('pauseSandbox');
    const abort = new AbortController();
    const gone = fetch(`${test.url}/v1/sandboxes/${id}/pause`, {
      method: 'POST',
      headers: { 'X-API-Key': test.key },
      signal: abort.signal,
    });
    await until(() => test.agent.calls.at(-1) === 'pauseSandbox');
    abort.abort();
    await assert.rejects(gone);
    release();
    await until(async () => (await test.ask('GET', `/v1/sandboxes/${id}`)).body.status === 'paused');
    await test.ask('DELETE', `/v1/sandboxes/${id}`);
  });

  it('follow the host when a verb fails', async () => {
    const id = await test.createSandbox();
    test.agent.failNext('pauseSandbox', new ThawError('internal', 'the disk is full'));
    const failed = await test.ask('POST', `/v1/sandboxes/${id}/pause`);
    assert.equal(failed.status, 500);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'running');

    await test.ask('POST', `/v1/sandboxes/${id}/pause`);
    const sandbox = test.agent.sandboxes.get(id)!;
    sandbox.status = 'error';
    sandbox.errorReason = 'the VM died';
    test.agent.failNext('resumeSandbox', new ThawError('agent_error', 'the guest did not answer'));
    assert.equal((await test.ask('POST', `/v1/sandboxes/${id}/resume`)).status, 502);
    const row = await test.ask('GET', `/v1/sandboxes/${id}`);
    assert.equal(row.body.status, 'error');
    assert.equal(row.body.error_reason, 'the VM died');

    const resumed = await test.ask('POST', `/v1/sandboxes/${id}/resume`);
    assert.equal(resumed.body.status, 'running');
    assert.equal(resumed.body.rolled_back_to, row.body.build.id);
    assert.equal(resumed.body.error_reason, undefined);
    await test.ask('DELETE', `/v1/sandboxes/${id}`);
  });

  it('stay `stopping` until the host has destroyed them', async () => {
    const id = await test.createSandbox();
    test.agent.failNext('destroySandbox', new ThawError('unavailable', 'busy'));
    assert.equal((await test.ask('DELETE', `/v1/sandboxes/${id}`)).status, 503);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'stopping');
    assert.equal((await test.ask('DELETE', `/v1/sandboxes/${id}`)).status, 204);
    assert.equal(test.agent.sandboxes.has(id), false);
  });

  it('are listed newest first, in pages, filtered', async () => {
    const ids: string[] = [];
    for (let i = 0; i < 5; i++)
      ids.unshift(await test.createSandbox({ metadata: { run: 'list', n: `${i % 2}` } }));
    const seen: string[] = [];
    let token: string | null = null;
    do {
      const query: string = `limit=2&metadata=${encodeURIComponent('run=list')}${token ? `&next_token=${token}` : ''}`;
      const page = await test.ask('GET', `/v1/sandboxes?${query}`);
      assert.equal(page.status, 200, JSON.stringify(page.body));
      assert.ok(page.body.length <= 2);
      seen.push(...page.body.map((sandbox: { id: string }) => sandbox.id));
      token = page.headers.get('x-next-token');
    } while (token);
    assert.deepEqual(seen, ids);

    const odd = await test.ask('GET', `/v1/sandboxes/?metadata=${encodeURIComponent('run=list&n=1')}`);
    assert.deepEqual(
      odd.body.map((sandbox: { id: string }) => sandbox.id),
      [ids[1], ids[3]],
    );
    await test.ask('POST', `/v1/sandboxes/${ids[0]}/pause`);
    const paused = await test.ask('GET', '/v1/sandboxes?status=paused');
    assert.deepEqual(
      paused.body.map((sandbox: { id: string }) => sandbox.id),
      [ids[0]],
    );
    await test.ask('DELETE', `/v1/sandboxes/${ids[1]}`);
    assert.equal(
      (await test.ask('GET', '/v1/sandboxes?status=running,paused&template=minimal')).body.length,
      4,
    );
    assert.ok((await test.ask('GET', '/v1/sandboxes?status=stopped')).body.length > 0);
    for (const query of [
      'limit=0',
      'limit=1001',
      'limit=x',
      'status=zombie',
      'next_token=%00',
      'next_token=abc',
      'nosuch=1',
      'metadata=%00=1',
      'limit=1&limit=2',
    ]) {
      const answer = await test.ask('GET', `/v1/sandboxes?${query}`);
      assert.equal(answer.status, 400, `${query}: ${JSON.stringify(answer.body)}`);
      assert.equal(answer.body.error.code, 'invalid_request');
    }
    for (const id of ids) await test.ask('DELETE', `/v1/sandboxes/${id}`);
  });

  it('belong to their team', async () => {
    const id = await test.createSandbox();
    const { db } = test.running.plane;
    await db.insertInto('teams').values({ id: 'other', name: 'other' }).execute();
    const key = newApiKey();
    await addKey(db, key, 'other');
    const asOther = { 'X-API-Key': key };
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`, undefined, asOther)).status, 404);
    assert.equal((await test.ask('DELETE', `/v1/sandboxes/${id}`, undefined, asOther)).status, 404);
    assert.deepEqual((await test.ask('GET', '/v1/sandboxes', undefined, asOther)).body, []);
    await test.ask('DELETE', `/v1/sandboxes/${id}`);
  });

  async function rows(): Promise<number> {
    const { db } = test.running.plane;
    return (await db.selectFrom('sandboxes').select('id').execute()).length;
  }
});
