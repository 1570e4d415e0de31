import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { type AuditLine, newApiKey } from '@thaw/api';
import { WebSocket } from 'ws';
import { TestPlane, until } from '../testing.ts';
import { purgeLines } from './table.ts';

describe('the audit log', () => {
  let test: TestPlane;
  let team: { id: string; key: string; keyId: string };
  before(async () => {
    test = await TestPlane.start();
    const { body } = await test.ask('POST', '/v1/teams', { name: 'watched' });
    team = { id: body.id, key: body.key.key, keyId: body.key.id };
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const as = (key: string, method: string, path: string, body?: unknown, headers = {}) =>
    test.ask(method, path, body, { 'X-API-Key': key, ...headers });
  const lines = async (query = '', key = test.key): Promise<AuditLine[]> => {
    const { status, body } = await as(key, 'GET', `/v1/audit${query}`);
    assert.equal(status, 200, JSON.stringify(body));
    return body;
  };

  it('says who did what to what, when, from where, and what came of it', async () => {
    const made = await as(team.key, 'POST', '/v1/sandboxes', {}, { 'X-Request-Id': 'made-here' });
    const [line] = await lines('', team.key);
    const { id: _, at, ...rest } = line!;
    assert.ok(Math.abs(Date.parse(at) - Date.now()) < 5000);
    assert.deepEqual(rest, {
      team: team.id,
      key: team.keyId,
      actor: team.key.slice(0, 8),
      verb: 'createSandbox',
      target: `minimal ${made.body.id}`,
      outcome: 'done',
      status: 201,
      address: '127.0.0.1',
      request_id: 'made-here',
    });
    const { id } = made.body;
    await as(team.key, 'POST', `/v1/sandboxes/${id}/exec`, { cmd: 'true' });
    await as(team.key, 'POST', '/v1/snapshots', { sandbox_id: id, name: 'audited' });
    await as(team.key, 'POST', `/v1/sandboxes/${id}/fork`, { count: 2 });
    await as(team.key, 'POST', '/v1/keys', { name: 'ci' });
    await as(team.key, 'GET', `/v1/sandboxes/${id}`);
    await as(team.key, 'DELETE', '/v1/snapshots/audited');
    const told = (await lines('?limit=5', team.key)).map(({ verb, target }) => `${verb} ${target}`);
    assert.equal(told[0], 'deleteSnapshot audited');
    assert.match(told[1]!, /^createKey key_[0-9a-f]{16}$/);
    assert.match(told[2]!, new RegExp(`^forkSandbox ${id}( sb[a-z0-9]{20}){2}$`));
    assert.match(told[3]!, new RegExp(`^createSnapshot ${id} audited tpl[a-z0-9]{20}$`));
    assert.equal(told[4], `exec ${id}`);
  });

  it('has what comes by the E2B API, by method and path', async () => {
    const { body } = await as(team.key, 'POST', '/v2/sandboxes', { templateID: 'base' });
    const id = body.sandboxID;
    await as(team.key, 'POST', `/sandboxes/${id}/snapshots`, { name: 'by-sdk' });
    await as(team.key, 'POST', '/templates/tags', { target: 'by-sdk', tags: ['v2'] });
    await as(team.key, 'POST', '/v2/sandboxes', { templateID: 'nothing' });
    await as(test.key, 'DELETE', `/sandboxes/${id}`);
    await fetch(`${test.url}/sandboxes/${id}/pause`, { method: 'POST' });
    const told = (await lines('?limit=6')).map(({ verb, target, outcome }) => `${verb} ${outcome} ${target}`);
    for (const [index, expected] of [
      `^POST /sandboxes/:id/pause unauthenticated ${id}$`,
      `^DELETE /sandboxes/:id not_found ${id}$`,
      '^POST /v2/sandboxes not_found nothing$',
      '^POST /templates/tags done by-sdk tpl[a-z0-9]{20}:v2$',
      `^POST /sandboxes/:id/snapshots done ${id} by-sdk tpl[a-z0-9]{20}$`,
      `^POST /v2/sandboxes done base ${id}$`,
    ].entries())
      assert.match(told[index]!, new RegExp(expected));
  });

  it('has what was refused, with its reason', async () => {
    const missing = 'sbaaaaaaaaaaaaaaaaaaaa';
    const { body: plain } = await as(team.key, 'POST', '/v1/keys', { name: 'plain' });
    for (const [key, method, path, body, outcome, verb] of [
      [team.key, 'POST', `/v1/sandboxes/${missing}/pause`, undefined, 'not_found', 'pauseSandbox'],
      [team.key, 'POST', '/v1/sandboxes', { vcpus: 'many' }, 'invalid_request', 'createSandbox'],
      [team.key, 'POST', '/v1/sandboxes', '{', 'invalid_request', 'createSandbox'],
      [team.key, 'POST', '/v1/teams', { name: 'mine' }, 'forbidden', 'createTeam'],
      [plain.key, 'POST', '/v1/keys', { name: 'mine' }, 'forbidden', 'createKey'],
      [team.key, 'POST', '/v1/nothing', {}, 'not_found', 'POST no such path'],
      [team.key, 'PUT', '/v1/sandboxes', {}, 'invalid_request', 'PUT no such path'],
      [team.key, 'DELETE', `/v1/keys/${team.keyId}`, undefined, 'conflict', 'revokeKey'],
    ] as const) {
      const { status } = await as(key, method, path, body);
      const [line] = await lines('?limit=1', team.key);
      assert.deepEqual([line!.verb, line!.outcome, line!.status], [verb, outcome, status], path);
    }
  });

  it('has what came without a valid key, for operators', async () => {
    const wrong = newApiKey();
    for (const headers of [{}, { 'X-API-Key': wrong }, { Authorization: 'Bearer nonsense' }]) {
      const response = await fetch(`${test.url}/v1/sandboxes`, { method: 'POST', headers });
      assert.equal(response.status, 401);
      const [line] = await lines('?limit=1');
      const { actor, outcome, verb, team: of, key } = line!;
      assert.deepEqual(
        [actor, outcome, verb, of, key],
        ['nobody', 'unauthenticated', 'createSandbox', undefined, undefined],
      );
    }
    assert.ok((await lines('', team.key)).every((line) => line.team === team.id));
  });

  it('is for administrators, each for its own team, and for operators', async () => {
    const { body: plain } = await as(team.key, 'POST', '/v1/keys', { name: 'plain' });
    assert.equal((await as(plain.key, 'GET', '/v1/audit')).status, 403);
    assert.equal((await as(team.key, 'GET', `/v1/audit?team=${team.id}`)).status, 403);
    const { body: admin } = await test.ask('POST', '/v1/keys', { name: 'admin', admin: true });
    // What an operator does to a team is that team's, and not seen by the operators' own team.
    await test.ask('POST', '/v1/teams/watched/keys', { name: 'from-above' });
    const [seen] = await lines('?limit=1', team.key);
    assert.deepEqual([seen!.verb, seen!.actor], ['createTeamKey', test.key.slice(0, 8)]);
    assert.doesNotMatch(JSON.stringify(await lines('?limit=1000', admin.key)), /watched|team_/);
    for (const name of ['watched', team.id]) {
      const found = await lines(`?team=${name}&limit=1000`);
      assert.ok(found.length > 5 && found.every((line) => line.team === team.id));
    }
    assert.equal((await test.ask('GET', '/v1/audit?team=nosuch')).status, 404);
  });

  it('is found by what its lines hold, page by page', async () => {
    const all = await lines('?limit=1000');
    const sorted = all.map(({ at, id }) => `${at} ${id}`);
    assert.deepEqual(sorted, sorted.toSorted().reverse());
    const paged: AuditLine[] = [];
    let token: string | undefined = '';
    do {
      const answer = await test.ask('GET', `/v1/audit?limit=7${token && `&next_token=${token}`}`);
      paged.push(...answer.body);
      token = answer.headers.get('x-next-token') ?? undefined;
    } while (token !== undefined);
    assert.deepEqual(paged, all);
    const middle = all[Math.floor(all.length / 2)]!;
    for (const [query, holds] of [
      ['verb=createSandbox', (line: AuditLine) => line.verb === 'createSandbox'],
      ['outcome=forbidden', (line: AuditLine) => line.outcome === 'forbidden'],
      ['outcome=failed', (line: AuditLine) => line.outcome !== 'done'],
      [`key=${team.keyId}`, (line: AuditLine) => line.key === team.keyId],
      [`key=${team.key.slice(0, 8)}`, (line: AuditLine) => line.key === team.keyId],
      ['target=audited', (line: AuditLine) => line.target.split(' ').includes('audited')],
      [`since=${middle.at}`, (line: AuditLine) => line.at >= middle.at],
      [`until=${middle.at}`, (line: AuditLine) => line.at < middle.at],
    ] as const) {
      const found = await lines(`?limit=1000&${query}`);
      assert.ok(found.length > 0, query);
      assert.deepEqual(found, all.filter(holds), query);
    }
    for (const query of ['since=today', 'limit=0', 'x=1', 'next_token=x'])
      assert.equal((await test.ask('GET', `/v1/audit?${query}`)).status, 400, query);
  });

  it('holds no secret, wherever one was put', async () => {
    const secret = newApiKey();
    await test.ask('POST', '/v1/keys', { name: secret.slice(0, 60) });
    await test.ask('DELETE', `/v1/keys/${secret}`);
    await test.ask('DELETE', `/v1/snapshots/${secret}?x=${secret}`);
    await test.ask('POST', '/v1/sandboxes', { template: secret, env: { KEY: secret } });
    await test.ask('DELETE', '/v1/snapshots/%00a%ED%A0%80');
    const rows = await test.withDatabase((db) => db.selectFrom('audit').selectAll().execute());
    assert.doesNotMatch(JSON.stringify(rows), /e2b_[0-9a-f]{5}/);
    for (const { hash } of await test.withDatabase((db) =>
      db.selectFrom('api_keys').select('hash').execute(),
    ))
      assert.ok(!JSON.stringify(rows).includes(hash));
    assert.ok((await lines(`?verb=revokeKey&limit=1`))[0]!.target.startsWith(`${secret.slice(0, 8)}…`));
  });

  it('has commands of a WebSocket, with the key of its first message too', async () => {
    const { body: sandbox } = await as(team.key, 'POST', '/v1/sandboxes', {});
    const url = `${test.url.replace('http', 'ws')}/v1/sandboxes/${sandbox.id}/exec/stream`;
    const run = async (headers: Record<string, string>, ...messages: object[]) => {
      const socket = new WebSocket(url, { headers });
      await once(socket, 'open');
      for (const message of messages) socket.send(JSON.stringify(message));
      await once(socket, 'close');
      const [line] = await lines('?limit=1');
      return [line!.verb, line!.actor, line!.outcome, line!.target];
    };
    const actor = team.key.slice(0, 8);
    const start = { type: 'start', cmd: 'true' };
    const asHeader = { 'X-API-Key': team.key };
    assert.deepEqual(await run(asHeader, start), ['execStream', actor, 'done', sandbox.id]);
    const auth = (key: string) => ({ type: 'auth', key });
    assert.deepEqual(await run({}, auth(team.key), start), ['execStream', actor, 'done', sandbox.id]);
    const wrong = await run({}, auth(newApiKey()), start);
    assert.deepEqual(wrong, ['execStream', 'nobody', 'unauthenticated', sandbox.id]);
    const theirs = await run({}, auth(test.key), start);
    assert.deepEqual(theirs, ['execStream', test.key.slice(0, 8), 'not_found', sandbox.id]);
    const before = new WebSocket(url, { headers: { 'X-API-Key': test.key } });
    await once(before, 'error');
    assert.deepEqual((await lines('?limit=1'))[0]!.outcome, 'not_found');
  });

  it('has what was done for somebody who left before the answer', async () => {
    const { body: sandbox } = await as(team.key, 'POST', '/v1/sandboxes', {});
    const release = test.agent.hold('pauseSandbox');
    const leaving = httpRequest(`${test.url}/v1/sandboxes/${sandbox.id}/pause`, {
      method: 'POST',
      headers: { 'X-API-Key': team.key },
    });
    leaving.on('error', () => {});
    leaving.end();
    await until(() => test.agent.calls.at(-1) === 'pauseSandbox');
    leaving.destroy();
    release();
    await until(async () => {
      const [line] = await lines(`?verb=pauseSandbox&target=${sandbox.id}`);
      return line?.outcome === 'done';
    });
  });

  it('is only appended to, and kept within its bounds', async () => {
    await test.withDatabase(async (db) => {
      await assert.rejects(
        db
          .updateTable('audit')
          .set({ outcome: 'done' } as never)
          .execute(),
        /do not change/,
      );
      for (let i = 0; i < 20; i++) await fetch(`${test.url}/v1/keys`, { method: 'POST' });
      await until(async () => (await lines('?outcome=unauthenticated')).length >= 20);
      const of = async () => (await lines(`?team=${team.id}&limit=1000`)).length;
      const before = await of();
      const most = before + 5;
      const newest = await lines('?outcome=unauthenticated&limit=1');
      await purgeLines(db, 3600, 20);
      assert.equal(await of(), 20);
      assert.ok(most > 20);
      const left = (await lines('?outcome=unauthenticated')).filter((line) => line.team === undefined);
      assert.equal(left.length, 20);
      assert.deepEqual(left[0], newest[0]);
      await purgeLines(db, 0, 20);
      assert.deepEqual(await lines(), []);
    });
  });

  it('loses nothing when its control plane ends, and says what the program on the host did', async () => {
    const { body: sandbox } = await test.ask('POST', '/v1/sandboxes', {});
    for (let i = 0; i < 30; i++) await test.ask('PATCH', `/v1/sandboxes/${sandbox.id}`, { timeout_sec: 9 });
    await test.restart();
    assert.equal((await lines(`?verb=updateSandbox&target=${sandbox.id}`)).length, 30);
    const { addKey } = await import('../auth/key.ts');
    const key = newApiKey();
    for (let i = 0; i < 2; i++) await test.withDatabase((db) => addKey(db, key));
    const added = await lines('?verb=addKey');
    assert.deepEqual([added.length, added[0]!.actor], [1, 'thaw']);
  });
});

describe('the audit log, when things go wrong', () => {
  it('is written when the database is back', async () => {
    await using test = await TestPlane.start({ server: true });
    const id = await test.createSandbox();
    await test.cluster.crash();
    for (let i = 0; i < 3; i++)
      assert.equal((await test.ask('PATCH', `/v1/sandboxes/${id}`, { timeout_sec: 9 })).status, 503);
    assert.equal((await test.ask('GET', '/v1/audit')).status, 503);
    await test.cluster.restart();
    await until(async () => {
      const { status, body } = await test.ask('GET', `/v1/audit?target=${id}&outcome=unavailable`);
      return status === 200 && body.length === 3;
    });
  });

  it('keeps the other lines when one can not be written', async () => {
    await using test = await TestPlane.start();
    const line = {
      team_id: null,
      key_id: null,
      actor: 'x',
      outcome: 'done',
      address: null,
      request_id: null,
    };
    const { audit } = test.running.plane;
    for (const verb of ['one', 'b\0d', 'two']) audit.record({ ...line, verb, status: 200, targets: [] });
    await audit.flush();
    const { body } = await test.ask('GET', '/v1/audit?key=x');
    assert.deepEqual(
      body.map(({ verb }: AuditLine) => verb),
      ['two', 'one'],
    );
  });

  it('believes where a request came from if a trusted proxy says so', async () => {
    for (const [trustedProxies, address] of [
      [[], '127.0.0.1'],
      [['127.0.0.0/8', '203.0.113.1'], '198.51.100.7'],
    ] as const) {
      await using test = await TestPlane.start({ trustedProxies: [...trustedProxies] });
      const forwarded = { 'X-Forwarded-For': '192.0.2.1, 198.51.100.7, 203.0.113.1' };
      await test.ask('POST', '/v1/sandboxes', {}, forwarded);
      assert.equal((await test.ask('GET', '/v1/audit?limit=1')).body[0].address, address);
    }
  });
});
