import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import net, { type Socket } from 'node:net';
import { buffer, text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket, WebSocketServer } from 'ws';
import { TestPlane, until } from '../testing.ts';
import { ask, newAddress, open, type Service, sandboxAt, sayRaw, service } from './fixture.ts';

const MIB = 1024 * 1024;

describe('what goes through the proxy', () => {
  let plane: TestPlane;
  let guest: string;
  let id: string;
  let proxy: string;
  let app: Service;
  let handle: http.RequestListener = () => {};
  const server = http.createServer((request, response) => handle(request, response));
  before(async () => {
    plane = await TestPlane.start({ proxy: true });
    proxy = plane.running.proxy.url!;
    guest = newAddress();
    app = await service(guest, server);
    id = await sandboxAt(plane, guest);
  });
  after(async () => {
    await app?.[Symbol.asyncDispose]();
    await plane?.[Symbol.asyncDispose]();
  });

  const host = (port = app.port) => `${port}-${id}.sbx.example`;
  const at = () => ({ proxy, host: host() });

  it('is a WebSocket', async () => {
    const sockets = new WebSocketServer({ noServer: true });
    server.on('upgrade', (request, socket, head) =>
      sockets.handleUpgrade(request, socket, head, (client) => {
        client.send(`hello ${request.headers.host}`);
        client.on('message', (data, binary) => client.send(data, { binary }));
      }),
    );
    const client = new WebSocket(proxy.replace('http', 'ws'), { headers: { Host: host() } });
    const said: string[] = [];
    client.on('message', (data) => said.push(`${data}`));
    await once(client, 'open');
    client.send('one');
    client.send(Buffer.alloc(MIB, 'x'));
    await until(() => said.length === 3);
    assert.deepEqual([said[0], said[1], said[2]?.length], [`hello ${host()}`, 'one', MIB]);
    client.close(4001, 'enough');
    const [code, reason] = await once(client, 'close');
    assert.deepEqual([code, `${reason}`], [4001, 'enough']);

    const broken = new WebSocket(proxy.replace('http', 'ws'), { headers: { Host: host() } });
    await once(broken, 'open');
    const closed = once(broken, 'close');
    for (const each of sockets.clients) each.terminate();
    assert.equal((await closed)[0], 1006);
    server.removeAllListeners('upgrade');
  });

  it('is a refused change of protocol, and the connection is over then', async () => {
    handle = (_request, response) => response.writeHead(426, { 'X-Why': 'no' }).end('never');
    const heard = await sayRaw(
      proxy,
      `GET / HTTP/1.1\r\nHost: ${host()}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nPOST /init HTTP/1.1\r\nHost: x\r\n\r\n`,
    );
    assert.match(heard, /^HTTP\/1.1 426 .*X-Why: no.*never/s);
    assert.equal(heard.match(/HTTP\/1.1/g)?.length, 1);
    const missing = await sayRaw(
      proxy,
      'GET / HTTP/1.1\r\nHost: 1-sb0.x.y\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n',
    );
    assert.match(missing, /^HTTP\/1.1 502 .*was not found/s);
  });

  it('is anything that a connection was changed to, each side ending by itself', async () => {
    const raw = net.createServer({ allowHalfOpen: true }, async (socket) => {
      await once(socket, 'data');
      socket.write('HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\nfirst ');
      socket.end(`last of ${(await buffer(socket)).length}`);
    });
    await using tcp = await service(guest, raw);
    const { hostname, port } = new URL(proxy);
    const socket = net.connect({ host: hostname, port: Number(port), allowHalfOpen: true });
    socket.write(
      `GET / HTTP/1.1\r\nHost: ${host(tcp.port)}\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n`,
    );
    const heard = text(socket);
    await once(socket, 'data');
    socket.end(Buffer.alloc(3 * MIB));
    assert.match(await heard, /last of 3145728$/);
  });

  it('is an answer that comes in its own time', async () => {
    let finish = () => {};
    handle = (_request, response) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' }).flushHeaders();
      finish = () => response.end('data: 2\n\n');
      setTimeout(() => response.write('data: 1\n\n'), 100);
    };
    const response = await open(at());
    const [first] = await once(response, 'data');
    assert.equal(`${first}`, 'data: 1\n\n');
    finish();
    assert.equal(await text(response), 'data: 2\n\n');
  });

  it('is broken where it breaks', async () => {
    const ways: [string, (socket: Socket) => void][] = [
      ['Content-Length: 10\r\n\r\nhalf', (socket) => socket.end()],
      ['Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n', (socket) => socket.end()],
      ['\r\nhalf', (socket) => socket.resetAndDestroy()],
    ];
    for (const [rest, end] of ways) {
      const raw = net.createServer((socket) =>
        socket.once('data', () => {
          socket.write(`HTTP/1.1 200 OK\r\n${rest}`);
          setTimeout(() => end(socket), 50);
        }),
      );
      await using tcp = await service(guest, raw);
      const response = await open({ proxy, host: host(tcp.port) });
      await assert.rejects(text(response), { code: 'ECONNRESET' }, rest);
    }
    const raw = net.createServer((socket) => socket.once('data', () => socket.end('nonsense\r\n\r\n')));
    await using tcp = await service(guest, raw);
    const told = await ask({ proxy, host: host(tcp.port) });
    assert.equal(told.status, 502);
    assert.match(told.body, /no valid answer/);
  });

  it('is broken for the guest too when the client goes', async () => {
    const seen: string[] = [];
    handle = (request, response) => {
      request.on('error', () => seen.push('request broken'));
      request.resume();
      response.on('close', () => seen.push(response.writableFinished ? 'whole' : 'cut'));
      response.write('x');
    };
    const { hostname, port } = new URL(proxy);
    const upload = http.request({ host: hostname, port, method: 'POST', headers: { Host: host() } });
    upload.on('error', () => {});
    upload.write('half');
    await once(upload, 'response');
    upload.destroy();
    await until(() => seen.includes('request broken') && seen.includes('cut'));
  });

  it('is an answer before the end of its request', async () => {
    handle = (_request, response) => response.writeHead(413).end('too much');
    const { hostname, port } = new URL(proxy);
    const agent = new http.Agent({ keepAlive: true });
    const upload = http.request({ agent, host: hostname, port, method: 'POST', headers: { Host: host() } });
    upload.on('error', () => {});
    const piece = Buffer.alloc(64 * 1024);
    const timer = setInterval(() => upload.write(piece), 1);
    const [response] = (await once(upload, 'response')) as [http.IncomingMessage];
    assert.equal(await text(response), 'too much');
    clearInterval(timer);
    upload.end();
    agent.destroy();
  });

  it('waits for leave to send where the client does', async () => {
    const seen: string[] = [];
    const strict = http.createServer();
    strict.on('checkContinue', async (request, response) => {
      seen.push('asked');
      response.writeContinue();
      response.end(await text(request));
    });
    await using own = await service(guest, strict);
    const { hostname, port } = new URL(proxy);
    const upload = http.request({
      ...{ host: hostname, port, method: 'PUT' },
      headers: { Host: host(own.port), Expect: '100-continue', 'Content-Length': 4 },
    });
    upload.flushHeaders();
    await once(upload, 'continue');
    upload.end('body');
    const [response] = (await once(upload, 'response')) as [http.IncomingMessage];
    assert.equal(await text(response), 'body');
    assert.deepEqual(seen, ['asked']);
  });

  it('has no body where none is, trailers where they are, and every way to end', async () => {
    handle = (request, response) => {
      const { method, url, headers } = request;
      if (url === '/trailers') {
        response.writeHead(200, { Trailer: 'X-Sum' });
        response.write('a');
        response.addTrailers({ 'X-Sum': '1' });
        return response.end();
      }
      if (method === 'HEAD') return response.writeHead(200, { 'Content-Length': 77 }).end();
      if (url === '/304') return response.writeHead(304, { ETag: '"x"' }).end();
      response.end(
        JSON.stringify({ method, length: headers['content-length'], te: headers['transfer-encoding'] }),
      );
    };
    const trailers = await open({ ...at(), path: '/trailers' });
    await text(trailers);
    assert.deepEqual(trailers.trailers, { 'x-sum': '1' });
    const head = await ask({ ...at(), method: 'HEAD' });
    assert.equal(head.headers['content-length'], '77');
    assert.equal((await ask({ ...at(), path: '/304' })).status, 304);
    for (const method of ['GET', 'POST', 'DELETE', 'OPTIONS', 'PATCH']) {
      const { body } = await ask({ ...at(), method });
      assert.equal(JSON.parse(body).method, method);
      assert.equal(JSON.parse(body).te, undefined, method);
    }
    const old = await sayRaw(proxy, `GET / HTTP/1.0\r\nHost: ${host()}\r\n\r\n`);
    assert.match(old, /^HTTP\/1.1 200 .*"GET"\}$/s);
    const whole = await sayRaw(
      proxy,
      `GET http://${host()}/304 HTTP/1.1\r\nHost: ${host()}\r\nConnection: close\r\n\r\n`,
    );
    assert.match(whole, /^HTTP\/1.1 304/);
  });

  it('may be a lot, both ways, and little of it is here at a time', async () => {
    const size = 256 * MIB;
    const piece = Buffer.alloc(MIB, 'thaw');
    const expected = createHash('sha256');
    for (let sent = 0; sent < size; sent += MIB) expected.update(piece);
    const digest = expected.digest('hex');
    handle = async (request, response) => {
      if (request.method === 'POST') {
        const sum = createHash('sha256');
        for await (const part of request) {
          sum.update(part as Buffer);
          // Slower than it comes.
          if (Math.random() < 0.01) await sleep(1);
        }
        return response.end(sum.digest('hex'));
      }
      for (let sent = 0; sent < size; sent += MIB) if (!response.write(piece)) await once(response, 'drain');
      response.end();
    };
    const before = process.memoryUsage().rss;
    let most = 0;
    const timer = setInterval(() => {
      most = Math.max(most, process.memoryUsage().rss);
    }, 20);
    const sum = createHash('sha256');
    for await (const part of await open(at())) {
      sum.update(part as Buffer);
      if (Math.random() < 0.002) await sleep(2);
    }
    assert.equal(sum.digest('hex'), digest);
    const { hostname, port } = new URL(proxy);
    const upload = http.request({ host: hostname, port, method: 'POST', headers: { Host: host() } });
    const answered = once(upload, 'response') as Promise<[http.IncomingMessage]>;
    for (let sent = 0; sent < size; sent += MIB) if (!upload.write(piece)) await once(upload, 'drain');
    upload.end();
    const [response] = await answered;
    assert.equal(await text(response), digest);
    clearInterval(timer);
    // Client and guest are in this process too.
    assert.ok(most - before < 160 * MIB, `${Math.round((most - before) / MIB)} MiB more`);
  });

  it('does not wait at its client when the sandbox is idle: it is in use', async () => {
    handle = (_request, response) => void setTimeout(() => response.end('late'), 300);
    const asked = ask(at());
    await sleep(100);
    assert.ok(plane.running.plane.activity.has(id));
    assert.equal((await asked).body, 'late');
  });

  it('shows the service another host, and takes TLS to its port, if it was told to', async () => {
    const own = await sandboxAt(plane, guest, {
      ingress: JSON.stringify({ mask_request_host: `localhost:$\{PORT}` }),
    });
    handle = (request, response) => response.end(JSON.stringify(request.rawHeaders));
    const name = `${app.port}-${own}.sbx.example`;
    const { body } = await ask({ proxy, host: name, headers: { 'X-Forwarded-Host': 'mine' } });
    const raw: string[] = JSON.parse(body);
    assert.equal(raw[raw.indexOf('Host') + 1], `localhost:${app.port}`);
    assert.equal(raw[raw.indexOf('X-Forwarded-Host') + 1], name);
    assert.equal(raw.includes('mine'), false);
  });
});
