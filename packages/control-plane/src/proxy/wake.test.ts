import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import { text } from 'node:stream/consumers';
import { after, before, beforeEach, describe, it } from 'node:test';
import { ThawError } from '@thaw/api';
import { moveSandbox } from '../sandbox/table.ts';
import { TestPlane, until } from '../testing.ts';
import { ask, newAddress, open, type Service, sandboxAt, service, type Told } from './fixture.ts';
import { findRoutes } from './table.ts';

function signed(path: string, token: string, { operation = 'read', user = '', expires = 0 } = {}): string {
  const raw = `${path}:${operation}:${user}:${token}${expires === 0 ? '' : `:${expires}`}`;
  const signature = `v1_${createHash('sha256').update(raw).digest('base64').replace(/=+$/, '')}`;
  const query = new URLSearchParams({ path, signature });
  if (user !== '') query.set('username', user);
  if (expires !== 0) query.set('signature_expiration', `${expires}`);
  return `/files?${query}`;
}

describe('traffic to a paused sandbox', () => {
  let plane: TestPlane;
  let guest: string;
  let proxy: string;
  let app: Service;
  let agent: Service;
  before(async () => {
    plane = await TestPlane.start({ proxy: true, proxyLimits: { waiting: 30, openPerSandbox: 25 } });
    proxy = plane.running.proxy.url!;
    guest = newAddress();
    plane.agent.hostIps = [guest, guest];
    const answer: http.RequestListener = (request, response) => {
      if (request.url === '/slow') return;
      response.end(`${request.method} ${request.url}`);
    };
    app = await service(guest, http.createServer(answer));
    agent = await service(guest, http.createServer(answer), 49_983);
  });
  after(async () => {
    await app?.[Symbol.asyncDispose]();
    await agent?.[Symbol.asyncDispose]();
    await plane?.[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    plane.agent.calls.length = 0;
  });

  const to = (id: string, port = app.port, path = '/', headers: Record<string, string> = {}): Promise<Told> =>
    ask({ proxy, host: `${port}-${id}.sbx.example`, path, headers });
  const pause = async (id: string) =>
    assert.equal((await plane.ask('POST', `/v1/sandboxes/${id}/pause`)).status, 200);
  const make = (patch: object = {}, wish: object = {}) => sandboxAt(plane, guest, patch, wish);
  const tokenOf = async (id: string) => (await findRoutes(plane.running.plane.db, [id]))[0]!.accessToken!;
  const status = async (id: string): Promise<string> =>
    (await plane.ask('GET', `/v1/sandboxes/${id}`)).body.status;
  const resumes = () => plane.agent.count('resumeSandbox');

  it('resumes it once for all who come at once', async () => {
    const id = await make();
    await pause(id);
    const letGo = plane.agent.hold('resumeSandbox');
    const asked = Array.from({ length: 20 }, (_, index) => to(id, app.port, `/${index}`));
    await until(() => resumes() === 1);
    letGo();
    for (const [index, told] of (await Promise.all(asked)).entries())
      assert.deepEqual([told.status, told.body], [200, `GET /${index}`]);
    assert.equal(resumes(), 1);
    const { body: events } = await plane.ask('GET', `/v1/sandboxes/${id}/events`);
    assert.equal(events.find(({ verb }: { verb: string }) => verb === 'resume').actor, 'traffic');
  });

  it('waits for a pause under way, and resumes then', async () => {
    const id = await make();
    const letGo = plane.agent.hold('pauseSandbox');
    const pausing = pause(id);
    await until(() => plane.agent.count('pauseSandbox') === 1);
    const asked = to(id);
    letGo();
    assert.equal((await asked).status, 200);
    await pausing;
    assert.equal(resumes(), 1);
  });

  it("does not wake what may not sleep through traffic's wishes", async () => {
    const id = await make({}, { auto_resume: false });
    const letGo = plane.agent.hold('pauseSandbox');
    const pausing = pause(id);
    await until(() => plane.agent.count('pauseSandbox') === 1);
    assert.equal((await to(id)).status, 409);
    letGo();
    await pausing;
    const refused = await to(id);
    assert.equal(refused.status, 502);
    assert.match(refused.body, /"The sandbox was not found"/);
    const disk = await make();
    await pause(disk);
    await moveSandbox(plane.running.plane.db, disk, ['paused'], { pause_mode: 'filesystem' });
    assert.match((await to(disk)).body, /was not found/);
    assert.equal(resumes(), 0);
  });

  it("asks for the agent's token at the agent's port", async () => {
    const id = await make();
    const token = await tokenOf(id);
    await pause(id);
    const tries: [string, Record<string, string>][] = [
      ['/health', {}],
      ['/health', { 'X-Access-Token': 'wrong' }],
      ['/health', { 'X-Access-Token': `${token}x` }],
      [signed('a', 'another'), {}],
      [signed('a', token, { expires: 1 }), {}],
      [signed('a', token, { operation: 'write' }), {}],
      [signed('a', token), { 'X-Access-Token': 'wrong' }],
      [signed('a', token).replace('/files', '/file'), {}],
    ];
    for (const [path, headers] of tries) {
      const told = await to(id, 49_983, path, headers);
      assert.equal(told.status, 403, path);
      assert.deepEqual(Object.keys(JSON.parse(told.body)), ['sandboxId', 'message', 'code']);
    }
    const preflight = await ask({
      ...{ proxy, host: `49983-${id}.x.y`, method: 'OPTIONS' },
      headers: {
        'Access-Control-Request-Method': 'POST',
        'Access-Control-Request-Headers': 'x-access-token',
      },
    });
    assert.deepEqual(
      [preflight.status, preflight.headers['access-control-allow-headers'], preflight.body],
      [204, 'x-access-token', ''],
    );
    assert.equal((await to(id, 49_983, '/init', { 'X-Access-Token': token })).status, 404);
    assert.match((await to(id, 49_982, '/', { 'X-Access-Token': token })).body, /was not found/);
    assert.equal(resumes(), 0);
    const path = signed('a b', token, { user: 'user', expires: 9_999_999_999 });
    assert.equal((await to(id, 49_983, path)).body, `GET ${path}`);
    assert.equal(resumes(), 1);
    await pause(id);
    assert.equal((await to(id, 49_983, '/health', { 'X-Access-Token': token })).status, 200);
  });

  it('is use of a sandbox, unless it gets nothing of it', async () => {
    const id = await make();
    const token = await tokenOf(id);
    const { activity } = plane.running.plane;
    await activity.flush();
    await to(id, 1);
    await to(id, 49_982);
    await to(id, 49_983);
    await to(id, 49_983, '/health', { 'X-Access-Token': 'wrong' });
    assert.equal(activity.has(id), false);
    await to(id, 49_983, '/health', { 'X-Access-Token': token });
    assert.equal(activity.has(id), true);
    await activity.flush();
    await to(id);
    assert.equal(activity.has(id), true);
  });

  it('asks for the traffic token where traffic is not public', async () => {
    const ingress = JSON.stringify({ allow_public_traffic: false });
    const id = await make({ ingress, traffic_token: 'ticket' });
    const refused = await to(id);
    assert.equal(refused.status, 403);
    assert.equal(JSON.parse(refused.body).sandboxId, id);
    assert.equal((await to(id, app.port, '/', { 'e2b-traffic-access-token': 'ticket' })).status, 200);
    assert.equal((await to(id, 49_983)).status, 200, 'the agent asks for its own');
    await pause(id);
    for (const headers of [{}, { 'e2b-traffic-access-token': 'tickets' }])
      assert.equal((await to(id, app.port, '/', headers as Record<string, string>)).status, 403);
    assert.equal(resumes(), 0);
    assert.equal((await to(id, app.port, '/', { 'e2b-traffic-access-token': 'ticket' })).status, 200);
    const broken = await make({ ingress });
    assert.equal((await to(broken)).status, 403, 'no token is no way in');
  });

  it('finds the sandbox of a signed URL that names none', async () => {
    await make();
    const id = await make();
    const path = signed('x', await tokenOf(id));
    assert.equal((await ask({ proxy, path })).body, `GET ${path}`);
    assert.equal((await ask({ proxy, path: signed('x', 'nobodys') })).status, 400);
    assert.equal((await ask({ proxy, path: '/files?path=x' })).status, 400);
    await pause(id);
    assert.equal((await ask({ proxy, path })).status, 200);
    assert.equal(resumes(), 1);
    await plane.ask('DELETE', `/v1/sandboxes/${id}`);
    assert.match((await ask({ proxy, path })).body, /was not found/);
  });

  it('tells what goes wrong, and does not try again at once', async () => {
    const id = await make();
    await pause(id);
    plane.agent.failNext('resumeSandbox', new ThawError('agent_error', 'no'));
    for (let round = 0; round < 3; round++) {
      const told = await to(id);
      assert.equal(told.status, 502);
      assert.match(told.body, /could not be resumed/);
      assert.doesNotMatch(told.body, /not found|not open/);
    }
    assert.equal(resumes(), 1);
    await until(async () => (await to(id)).status === 200, 5_000);
  });

  it('is bounded: for one sandbox, and of those who wait', async () => {
    const busy = await make();
    const slow = await Promise.all(
      Array.from({ length: 25 }, async () => {
        const asked = http.get(proxy, {
          agent: false,
          path: '/slow',
          headers: { Host: `${app.port}-${busy}.x.y` },
        });
        asked.on('error', () => {});
        await once(asked, 'finish');
        return asked;
      }),
    );
    await until(() => app.sockets.size >= 25);
    const refused = await to(busy);
    assert.equal(refused.status, 429);
    assert.equal(JSON.parse(refused.body).code, 429);
    for (const asked of slow) asked.destroy();
    await until(async () => (await to(busy)).status === 200);

    const sleepers = await Promise.all([make(), make()]);
    for (const id of sleepers) await pause(id);
    const letGo = plane.agent.hold('resumeSandbox');
    let refusals = 0;
    const asked = sleepers.flatMap((id) =>
      Array.from({ length: 20 }, async () => {
        const told = await to(id);
        if (told.status === 429) refusals += 1;
        return told;
      }),
    );
    await until(() => refusals === 10);
    letGo();
    const all = await Promise.all(asked);
    assert.equal(all.filter((told) => told.status === 200).length, 30);
    assert.equal(resumes(), 2);
  });

  it('that gave up waiting leaves its place', async () => {
    const id = await make();
    await pause(id);
    const letGo = plane.agent.hold('resumeSandbox');
    const asked = Array.from({ length: 25 }, () => {
      const request = http.get(proxy, { agent: false, headers: { Host: `${app.port}-${id}.x.y` } });
      request.on('error', () => {});
      return request;
    });
    await until(async () => (await to(id)).status === 429);
    for (const request of asked) request.destroy();
    let last: Told | undefined;
    const told = to(id).then((answer) => {
      last = answer;
    });
    await until(async () => {
      if (last?.status !== 429) return true;
      void to(id).then((answer) => {
        last = answer;
      });
      return false;
    });
    letGo();
    await told;
    assert.equal((await to(id)).status, 200);
    assert.equal(await status(id), 'running');
  });

  it('cuts what was open, and nothing that comes later goes the old way', async () => {
    const id = await make({}, { auto_resume: false });
    const response = http.get(proxy, {
      agent: false,
      path: '/slow',
      headers: { Host: `${app.port}-${id}.x.y` },
    });
    const answered = once(response, 'response') as Promise<[http.IncomingMessage]>;
    await to(id);
    const before = app.connections;
    await pause(id);
    const [told] = await answered;
    assert.equal(told.statusCode, 502, 'nothing of an answer was sent yet');
    assert.match(await text(told), /was not found/);
    await plane.ask('POST', `/v1/sandboxes/${id}/resume`);
    await to(id);
    assert.ok(app.connections > before, 'no connection of before is used');
    const stream = await open({ proxy, host: `${app.port}-${id}.x.y` });
    assert.equal(await text(stream), 'GET /');
  });
});
