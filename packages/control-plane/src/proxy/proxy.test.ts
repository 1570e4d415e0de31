import assert from 'node:assert/strict';
import http from 'node:http';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { readConfig } from '../config.ts';
import { TestPlane, until } from '../testing.ts';
import { ask, newAddress, open, type Service, sandboxAt, service } from './fixture.ts';
import { startProxy } from './proxy.ts';

/** Says what it was asked. */
function echo(): http.Server {
  return http.createServer(async (request, response) => {
    const { method, url, rawHeaders } = request;
    const body = await text(request);
    response.setHeader('X-Guest', 'yes');
    response.setHeader('Set-Cookie', ['a=1', 'b=2']);
    response.end(JSON.stringify({ method, url, rawHeaders, body }));
  });
}

describe('the proxy', () => {
  let plane: TestPlane;
  let guest: string;
  let app: Service;
  let agent: Service;
  let id: string;
  let proxy: string;
  before(async () => {
    plane = await TestPlane.start({ proxy: true });
    proxy = plane.running.proxy.url!;
    guest = newAddress();
    app = await service(guest, echo());
    agent = await service(guest, echo(), 49_983);
    id = await sandboxAt(plane, guest, { access_token: 'secret' });
  });
  after(async () => {
    await app?.[Symbol.asyncDispose]();
    await agent?.[Symbol.asyncDispose]();
    await plane?.[Symbol.asyncDispose]();
  });

  const host = (port = app.port, sandbox = id) => `${port}-${sandbox}.sbx.example:8081`;

  it('passes on what it gets, by host or by headers', async () => {
    const told = await ask({
      proxy,
      host: host(),
      method: 'POST',
      path: '/a%2Fb?c=d&e',
      headers: { 'X-Own': 'ä', 'Accept-Encoding': 'br', Connection: 'keep-alive, X-Hop', 'X-Hop': '1' },
      body: Buffer.from('hello'),
    });
    assert.equal(told.status, 200, told.body);
    assert.deepEqual(told.headers['set-cookie'], ['a=1', 'b=2']);
    const seen = JSON.parse(told.body);
    assert.deepEqual([seen.method, seen.url, seen.body], ['POST', '/a%2Fb?c=d&e', 'hello']);
    const headers = new Map<string, string>();
    for (let index = 0; index < seen.rawHeaders.length; index += 2)
      headers.set(seen.rawHeaders[index], seen.rawHeaders[index + 1]);
    assert.equal(headers.get('Host'), host());
    assert.equal(headers.get('Accept-Encoding'), 'br');
    assert.equal(headers.get('X-Own'), 'ä');
    assert.equal(headers.has('X-Hop'), false);

    for (const name of [undefined, 'localhost', '[::1]:1', 'sandbox.example.org']) {
      const headers = { 'E2b-Sandbox-Id': id, 'E2b-Sandbox-Port': `${app.port}` };
      const told = await ask({ proxy, ...(name && { host: name }), headers });
      assert.equal(told.status, 200, `${name}: ${told.body}`);
    }
  });

  it('refuses what it can not route, in words', async () => {
    const wrong: [string, Record<string, string>][] = [
      ['localhost', { 'E2b-Sandbox-Id': id }],
      ['localhost', { 'E2b-Sandbox-Port': '80' }],
      ['127.0.0.1', { 'E2b-Sandbox-Id': id, 'E2b-Sandbox-Port': '0' }],
      ['127.0.0.1', { 'E2b-Sandbox-Id': 'A-B', 'E2b-Sandbox-Port': '80' }],
      ['localhost', {}],
      ['www.example.org', { 'E2b-Sandbox-Id': id, 'E2b-Sandbox-Port': `${app.port}` }],
      [`${app.port}-${id}`, {}],
      [`70000-${id}.example.org`, {}],
    ];
    for (const [name, headers] of wrong) {
      const told = await ask({ proxy, host: name, headers });
      assert.equal(told.status, 400, name);
      assert.match(told.headers['content-type'] ?? '', /^text\/plain/);
    }
  });

  it('says what is not there as clients know it', async () => {
    const missing = await ask({ proxy, host: host(80, 'sb00000000000000000000') });
    assert.equal(missing.status, 502);
    assert.deepEqual(JSON.parse(missing.body), {
      sandboxId: 'sb00000000000000000000',
      message: 'The sandbox was not found',
      code: 502,
    });
    const begun = performance.now();
    const closed = await ask({ proxy, host: host(1) });
    assert.ok(performance.now() - begun > 900, 'it tries again for a second');
    assert.equal(closed.status, 502);
    assert.deepEqual(JSON.parse(closed.body), {
      sandboxId: id,
      message: 'The sandbox is running but port is not open',
      port: 1,
      code: 502,
    });
    const hidden = await ask({ proxy, host: host(49_982) });
    assert.deepEqual(JSON.parse(hidden.body), { ...JSON.parse(closed.body), port: 49_982 });
    const page = await ask({ proxy, host: host(49_982), headers: { 'Sec-Fetch-Mode': 'navigate' } });
    assert.match(page.body, /<!doctype html>.*port is not open/s);
    for (const path of ['/init', '/init?x', '//init/', '/%69nit', '/a/../freeze']) {
      const told = await ask({ proxy, host: host(49_983), path, method: 'POST' });
      assert.equal(told.status, 404, path);
      assert.equal(JSON.parse(told.body).code, 404);
    }
    assert.equal((await ask({ proxy, host: host(app.port), path: '/init' })).status, 200);
    assert.equal((await ask({ proxy, host: host(49_983), path: '/health' })).status, 200);
  });

  it('waits for a service that is about to listen', async () => {
    const probe = await service(guest, echo());
    const { port } = probe;
    await probe[Symbol.asyncDispose]();
    const asked = ask({ proxy, host: host(port) });
    await sleep(250);
    await using _ = await service(guest, echo(), port);
    assert.equal((await asked).status, 200);
  });

  it('keeps connections for requests that may be repeated', async () => {
    const before = app.connections;
    for (let round = 0; round < 10; round++) await ask({ proxy, host: host() });
    assert.ok(app.connections - before <= 1, `${app.connections - before}`);
    const agentBefore = agent.connections;
    for (let round = 0; round < 10; round++)
      await ask({ proxy, host: host(49_983), method: 'POST', body: '{}' });
    assert.ok(agent.connections - agentBefore <= 1, `${agent.connections - agentBefore}`);
  });

  it('is killed under an open answer: the client sees a break, then that it is gone', async () => {
    const address = newAddress();
    await using slow = await service(
      address,
      http.createServer((_request, response) => {
        response.write('begun');
      }),
    );
    const own = await sandboxAt(plane, address);
    const response = await open({ proxy, host: host(slow.port, own) });
    const broken = text(response).then(
      () => 'whole',
      (error: NodeJS.ErrnoException) => error.code,
    );
    await plane.ask('DELETE', `/v1/sandboxes/${own}`);
    assert.equal(await broken, 'ECONNRESET');
    const after = await ask({ proxy, host: host(slow.port, own) });
    assert.equal(JSON.parse(after.body).message, 'The sandbox was not found');
    await until(() => slow.sockets.size === 0);
  });
});

describe('the end of the proxy', () => {
  it('lets answers end, closes what is idle, and cuts what has no end', async () => {
    const plane = await TestPlane.start({ proxy: true });
    const guest = newAddress();
    let finish = () => {};
    await using app = await service(
      guest,
      http.createServer((request, response) => {
        if (request.url === '/idle') return response.end();
        response.write('begun ');
        if (request.url === '/slow') finish = () => response.end('done');
      }),
    );
    const id = await sandboxAt(plane, guest);
    const at = { proxy: plane.running.proxy.url!, host: `${app.port}-${id}.x.y` };
    const agent = new http.Agent({ keepAlive: true });
    await ask({ ...at, path: '/idle', agent });
    const slow = text(await open({ ...at, path: '/slow' }));
    const endless = assert.rejects(text(await open(at)), { code: 'ECONNRESET' });
    const begun = performance.now();
    const ended = plane[Symbol.asyncDispose]();
    await until(async () =>
      ask({ ...at, path: '/idle' }).then(
        () => false,
        () => true,
      ),
    );
    finish();
    assert.equal(await slow, 'begun done');
    await endless;
    await ended;
    assert.ok(performance.now() - begun < 8_000);
    agent.destroy();
  });

  it('says that its port is taken', async () => {
    await using other = await service('127.0.0.1', http.createServer());
    const environment = { DATABASE_URL: 'postgres://x', THAW_PROXY_LISTEN: `127.0.0.1:${other.port}` };
    const { proxy } = readConfig(environment);
    await using plane = await TestPlane.start();
    await assert.rejects(startProxy(plane.running.plane, proxy, { databaseUrl: undefined }), {
      kind: 'conflict',
      message: /THAW_PROXY_LISTEN is 127\.0\.0\.1:\d+: another program listens there/,
    });
  });

  it('has the settings that go together', () => {
    const read = (own: NodeJS.ProcessEnv) => readConfig({ DATABASE_URL: 'postgres://x', ...own }).proxy;
    assert.deepEqual(read({}).listen, { host: '127.0.0.1', port: 8081 });
    assert.deepEqual(read({ THAW_LISTEN: '127.0.0.1:0' }).listen, { host: '127.0.0.1', port: 0 });
    assert.equal(read({ THAW_PROXY_LISTEN: 'off' }).listen, undefined);
    const tls = { THAW_PROXY_TLS_CERT: 'c', THAW_PROXY_TLS_KEY: 'k' };
    assert.throws(() => read(tls), /go together/);
    assert.throws(() => read({ THAW_PROXY_TLS_LISTEN: '[::]:3443' }), /go together/);
    const both = read({ ...tls, THAW_PROXY_TLS_LISTEN: '[::]:3443' });
    assert.deepEqual(both.tlsListen, { host: '::', port: 3443 });
  });
});
