/**
 * One team finds nothing of another's. Every route that the server has is tried with what belongs to another team, and
 * answers as it does for what never existed; nothing changes, nothing wakes, no host is asked.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { newSandboxId, newTemplateId } from '@thaw/api';
import { WebSocket } from 'ws';
import { tablesInOrder } from '../db/dump.ts';
import { type Answer, TestPlane, until } from '../testing.ts';
import { type Attempt, ROUTES, type Things, UNSUPPORTED } from './routes.ts';

/** What hosts may be asked for: nothing of it is of one sandbox. */
const LOOKS = ['listTemplates', 'getHost', 'getMetrics'];
/** Of what is another's, and of what Thaw does not do for anybody. */
const REFUSALS = [403, 404, 501];

/** Tables whose rows a request that finds nothing may add to. */
const LOGS = ['audit'];

describe('another team', () => {
  let test: TestPlane;
  let ofA: Things;
  let nobodys: Things;
  let keyA: string;
  let keyB: string;
  let ofB: Things;

  before(async () => {
    test = await TestPlane.start();
    [keyA, ofA] = await settle('team-a');
    [keyB, ofB] = await settle('team-b');
    nobodys = {
      running: newSandboxId(),
      paused: newSandboxId(),
      template: newTemplateId(),
      templateName: 'never-was',
      key: 'key_0123456789abcdef',
      team: 'team_0123456789abcdef',
      teamName: 'never-there',
    };
    await test.running.plane.activity.flush();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  /** A team with something of each kind. */
  async function settle(name: string): Promise<[string, Things]> {
    const { body: team } = await test.ask('POST', '/v1/teams', { name });
    const { key } = team.key;
    const make = async (method: string, path: string, body?: unknown) => {
      const answer = await as(key, method, path, body);
      assert.ok(answer.status < 300, `${path}: ${JSON.stringify(answer.body)}`);
      return answer.body;
    };
    const wish = { metadata: { of: 'a' } };
    const running = (await make('POST', '/v1/sandboxes', wish)).id;
    const paused = (await make('POST', '/v1/sandboxes', wish)).id;
    const templateName = `app-of-${name}`;
    const template = (await make('POST', '/v1/snapshots', { sandbox_id: running, name: templateName })).id;
    await make('POST', '/v1/snapshots', { sandbox_id: running, name: 'same-name' });
    await make('POST', `/v1/sandboxes/${paused}/pause`);
    const tags = { target: templateName, tags: ['v1'] };
    await make('POST', '/templates/tags', tags);
    const second = (await make('POST', '/v1/keys', { name: `second-of-${name}` })).id;
    return [key, { running, paused, template, templateName, key: second, team: team.id, teamName: name }];
  }

  function as(key: string, method: string, path: string, body?: unknown): Promise<Answer> {
    return test.ask(method, path, body, { 'X-API-Key': key });
  }

  async function attempt(method: string, { path, body, form: fields }: Attempt, key = keyB): Promise<Answer> {
    if (fields === undefined) return as(key, method, path, body);
    const headers = { 'X-API-Key': key };
    const response = await fetch(test.url + path, { method, headers, body: fields });
    return { status: response.status, headers: response.headers, body: await response.json() };
  }

  /** All rows there are, but those of logs. */
  function rows(): Promise<Record<string, unknown[]>> {
    return test.withDatabase(async (db) => {
      await test.running.plane.activity.flush();
      const found: Record<string, unknown[]> = {};
      for (const table of await tablesInOrder(db)) {
        if (LOGS.includes(table)) continue;
        const all = await db
          .selectFrom(table as 'sandboxes')
          .selectAll()
          .execute();
        found[table] = all.map((row) => JSON.stringify(row)).sort();
      }
      return found;
    });
  }

  /** An answer without the names that the request had in it, and without its time and place. */
  function plain({ status, body, headers }: Answer, things: Things): string {
    let text = typeof body === 'string' ? body : JSON.stringify(body);
    for (const [kind, value] of Object.entries(things)) text = text.replaceAll(value, `<${kind}>`);
    return `${status} ${headers.get('content-type')} ${text}`;
  }

  const routes = (): string[] =>
    test.running.app.patterns
      .flatMap(({ url, methods }) => methods.map((method) => `${method} ${url}`))
      .filter((route) => !route.startsWith('HEAD '));

  it('is tried on every route that there is', () => {
    const unknown = routes().filter((route) => ROUTES[route] === undefined);
    assert.deepEqual(unknown, [], 'routes that this test does not know how to try: add them to ROUTES');
    const gone = Object.keys(ROUTES).filter((route) => !routes().includes(route));
    assert.deepEqual(gone, [], 'routes that are no more');
  });

  /** Tries a route with A's things and with nobody's; both must be alike. Answers how often. */
  async function tryRoute(route: string, key: string): Promise<number> {
    const method = route.split(' ')[0]!;
    const none = ROUTES[route]!(nobodys);
    const theirs = ROUTES[route]!(ofA);
    for (const [index, one] of theirs.entries()) {
      const name = `${method} ${one.path} ${JSON.stringify(one.body ?? null)}`;
      const [calls, answer] = await calling(() => attempt(method, one, key));
      const [expectedCalls, expected] = await calling(() => attempt(method, none[index]!, key));
      // Figures change with each request.
      if (one.path !== '/metrics') assert.equal(plain(answer, ofA), plain(expected, nobodys), name);
      assert.deepEqual(calls, expectedCalls, `${name}: what hosts are asked`);
      assert.deepEqual(
        calls.filter((call) => !LOOKS.includes(call)),
        [],
        name,
      );
      const named = one.path.split('?')[0] + JSON.stringify(one.body ?? '');
      if (Object.values(ofA).some((value) => named.includes(value)))
        assert.ok(REFUSALS.includes(answer.status), `${name}: ${answer.status}`);
      const [sent, told] = [one.path + JSON.stringify(one.body ?? ''), JSON.stringify(answer.body)];
      for (const value of Object.values(ofA))
        assert.ok(
          sent.includes(value) || !told.includes(value),
          `${name} tells of ${value}: ${told.slice(0, 300)}`,
        );
    }
    return theirs.length;
  }

  async function calling<T>(work: () => Promise<T>): Promise<[string[], T]> {
    const calls = test.agent.calls.length;
    const result = await work();
    return [test.agent.calls.slice(calls), result];
  }

  it('gets the answer of what never existed, and nothing happens', async () => {
    const hosts = () => [...test.agent.sandboxes].map(([id, { status }]) => `${id} ${status}`);
    const before = [await rows(), hosts()];
    let tried = 0;
    for (const route of Object.keys(ROUTES)) tried += await tryRoute(route, keyB);
    assert.ok(tried > 100, `${tried}`);
    assert.deepEqual([await rows(), hosts()], before);
  });

  it('is not even an operator for what is in a team', async () => {
    const before = await rows();
    for (const route of Object.keys(ROUTES))
      if (!/teams|audit|metrics/.test(route)) await tryRoute(route, test.key);
    assert.deepEqual(await rows(), before);
  });

  it('does what is its own: the test tries what works', async () => {
    for (const [route, tries] of Object.entries(ROUTES)) {
      const [method, url] = route.split(' ') as [string, string];
      if (method !== 'GET' || !url.includes(':id') || url.includes('stream')) continue;
      if (url.includes(':team')) continue;
      const [first] = tries(ofB);
      const { status } = await attempt(method, first!);
      assert.ok(status === 200 || UNSUPPORTED.includes(route), `${route}: ${status}`);
    }
  });

  it('has no way in by a WebSocket', async () => {
    const before = await rows();
    const ask = async (id: string, headers: Record<string, string>, ...messages: object[]) => {
      const socket = new WebSocket(`${test.url.replace('http', 'ws')}/v1/sandboxes/${id}/exec/stream`, {
        headers,
      });
      const heard: string[] = [];
      socket.on('message', (data) => heard.push(data.toString()));
      socket.on('unexpected-response', (_request, response) => {
        heard.push(`HTTP ${response.statusCode}`);
        socket.emit('refused');
      });
      socket.on('error', () => {});
      socket.on('open', () => {
        for (const message of messages) socket.send(JSON.stringify(message));
      });
      const closed = once(socket, 'close').then(([code, reason]) => `${code} ${reason}`);
      const end = await Promise.race([closed, once(socket, 'refused').then(() => 'refused')]);
      return [...heard, end].join(' ').replaceAll(id, '<id>');
    };
    const start = { type: 'start', cmd: 'true' };
    const calls = test.agent.calls.length;
    for (const id of [ofA.running, ofA.paused]) {
      for (const [headers, ...messages] of [
        [{ 'X-API-Key': keyB }, start],
        [{ Authorization: `Bearer ${keyB}` }, start],
        [{}, { type: 'auth', key: keyB }, start],
      ] as [Record<string, string>, ...object[]][]) {
        const theirs = await ask(id, headers, ...messages);
        assert.equal(theirs, await ask(nobodys.running, headers, ...messages));
        assert.match(theirs, /404|not_found/);
      }
    }
    assert.deepEqual(test.agent.calls.slice(calls), []);
    assert.deepEqual(await rows(), before);
  });

  it('joins no verb that is under way, nor waits for it', async () => {
    for (const [rpc, verb, id] of [
      ['pauseSandbox', 'pause', ofA.running],
      ['resumeSandbox', 'resume', ofA.running],
    ] as const) {
      const release = test.agent.hold(rpc);
      const own = as(keyA, 'POST', `/v1/sandboxes/${id}/${verb}`);
      await until(() => test.agent.calls.at(-1) === rpc);
      for (const [method, path, body] of [
        ['POST', `/v1/sandboxes/${id}/${verb}`, undefined],
        ['DELETE', `/v1/sandboxes/${id}`, undefined],
        ['POST', `/v1/sandboxes/${id}/exec`, { cmd: 'true' }],
        ['POST', '/v1/snapshots', { sandbox_id: id, name: 'joined' }],
      ] as const)
        assert.equal((await as(keyB, method, path, body)).status, 404, `${verb}: ${path}`);
      release();
      assert.equal((await own).status, 200);
    }
    // Two templates of one name at the same time, each in its team.
    const release = test.agent.hold('createSnapshot');
    const wish = (sandbox_id: string) => ({ sandbox_id, name: 'at-once' });
    const both = [
      as(keyA, 'POST', '/v1/snapshots', wish(ofA.running)),
      as(keyB, 'POST', '/v1/snapshots', wish(ofB.running)),
    ];
    await until(() => test.agent.calls.slice(-2).every((call) => call === 'createSnapshot'));
    release();
    const [a, b] = await Promise.all(both);
    assert.deepEqual([a!.status, b!.status], [201, 201]);
    assert.notEqual(a!.body.id, b!.body.id);
    await as(keyA, 'DELETE', '/v1/snapshots/at-once');
    await as(keyB, 'DELETE', '/v1/snapshots/at-once');
  });

  it('has names of its own: the same ones mean its own templates', async () => {
    const templateOf = async (key: string) =>
      (await as(key, 'GET', '/v1/snapshots?type=snapshot')).body.find(
        ({ name }: { name: string }) => name === 'same-name',
      )?.id;
    const [a, b] = [await templateOf(keyA), await templateOf(keyB)];
    assert.notEqual(a, b);
    await as(keyB, 'POST', '/v1/sandboxes', { template: 'same-name' });
    assert.equal(test.agent.lastCreate?.template, b);
    const wish = { sandbox_id: ofB.running, name: 'same-name' };
    assert.equal((await as(keyB, 'POST', '/v1/snapshots?overwrite=true', wish)).body.id, b);
    assert.equal((await as(keyB, 'DELETE', '/v1/snapshots/same-name')).status, 204);
    assert.deepEqual([await templateOf(keyA), await templateOf(keyB)], [a, undefined]);
    const bases = async (key: string) =>
      (await as(key, 'GET', '/v1/snapshots?type=base')).body.map(({ name }: { name: string }) => name).sort();
    assert.deepEqual(
      [await bases(keyA), await bases(keyB)],
      [
        ['base', 'minimal'],
        ['base', 'minimal'],
      ],
    );
  });

  it('makes a sandbox of its own with the Idempotency-Key of another', async () => {
    const create = (key: string) =>
      test.ask(
        'POST',
        '/v2/sandboxes',
        { templateID: 'minimal' },
        {
          'X-API-Key': key,
          'Idempotency-Key': 'same',
        },
      );
    const [a, b, again] = [await create(keyA), await create(keyB), await create(keyB)];
    assert.deepEqual([a.status, b.status], [201, 201]);
    assert.notEqual(a.body.sandboxID, b.body.sandboxID);
    assert.equal(b.body.sandboxID, again.body.sandboxID);
    for (const [key, { body }] of [
      [keyA, a],
      [keyB, b],
    ] as const)
      await as(key, 'DELETE', `/sandboxes/${body.sandboxID}`);
  });

  it('takes nothing of the quota of another', async () => {
    await test.ask('PATCH', '/v1/teams/team-a', { granted: { sandboxes: 2 } });
    assert.equal((await as(keyB, 'POST', '/v1/sandboxes', {})).status, 201);
    const full = await as(keyA, 'POST', '/v1/sandboxes', {});
    assert.equal(full.status, 429);
    assert.equal((await as(keyA, 'GET', '/v1/team')).body.usage.sandboxes, 2);
  });

  it('does not become active by what others ask of it', async () => {
    const activeAt = async () => {
      await test.running.plane.activity.flush();
      return (await as(keyA, 'GET', `/v1/sandboxes/${ofA.running}`)).body.last_active_at;
    };
    const before = await activeAt();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await as(keyB, 'POST', `/v1/sandboxes/${ofA.running}/exec`, { cmd: 'true' });
    await as(keyB, 'POST', `/v1/sandboxes/${ofA.running}/files/stat`, { path: '/root/x' });
    assert.ok(!test.running.plane.activity.has(ofA.running));
    assert.equal(await activeAt(), before);
  });
});
