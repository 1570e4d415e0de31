import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { connect } from 'node:tls';
import { WebSocket, WebSocketServer } from 'ws';
import { TestPlane } from '../testing.ts';
import { ask, newAddress, type Service, sandboxAt, service } from './fixture.ts';

const MIB = 1024 * 1024;

describe('the proxy by TLS', () => {
  const folder = mkdtempSync(join(tmpdir(), 'thaw-proxy-'));
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  let plane: TestPlane;
  let app: Service;
  let id: string;
  let guest: string;
  let handle: http.RequestListener = () => {};
  const server = http.createServer((request, response) => handle(request, response));
  before(async () => {
    const subject = ['-subj', '/CN=sbx', '-addext', 'subjectAltName=DNS:*.sbx.localhost'];
    const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    execFileSync('openssl', [...made, '-days', '2', ...subject, '-keyout', key, '-out', cert], {
      stdio: 'ignore',
    });
    plane = await TestPlane.start({ proxy: { cert, key } });
    guest = newAddress();
    app = await service(guest, server);
    id = await sandboxAt(plane, guest);
  });
  after(async () => {
    await app?.[Symbol.asyncDispose]();
    await plane?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  const port = () => Number(new URL(plane.running.proxy.tlsUrl!).port);
  const name = (at = app.port) => `${at}-${id}.sbx.localhost`;
  const session = (): http2.ClientHttp2Session =>
    http2.connect(`https://127.0.0.1:${port()}`, {
      ...{ ca: readFileSync(cert), servername: name() },
      // What the client itself may have on its way.
      maxSessionMemory: 100,
    });

  it('speaks HTTP/2 and HTTP/1.1, as clients like', async () => {
    const own = session();
    handle = async (request, response) => {
      const { rawHeaders, headers, method } = request;
      response.setHeader('Set-Cookie', ['a=1', 'b=2']);
      response.setHeader('Keep-Alive', 'timeout=9');
      response.end(JSON.stringify({ method, rawHeaders, host: headers.host, body: await text(request) }));
    };
    const stream = own.request({
      ':method': 'POST',
      ':path': '/x',
      ':authority': `${name()}:${port()}`,
      cookie: ['c=3', 'd=4'],
      'x-own': ['1', '2'],
    });
    stream.end('body');
    const [headers] = await once(stream, 'response');
    assert.equal(headers[':status'], 200);
    assert.deepEqual(headers['set-cookie'], ['a=1', 'b=2']);
    const seen = JSON.parse(await text(stream));
    assert.deepEqual([seen.method, seen.body, seen.host], ['POST', 'body', `${name()}:${port()}`]);
    assert.equal(seen.rawHeaders[seen.rawHeaders.indexOf('cookie') + 1], 'c=3; d=4');
    const refused = own.request({ ':authority': '1-sb0.x.y' });
    const [no] = await once(refused, 'response');
    assert.equal(no[':status'], 502);
    assert.match(await text(refused), /was not found/);
    own.close();
    const figures = await plane.ask('GET', '/metrics');
    assert.match(figures.body, /thaw_proxy_requests_total\{by="guest",status="2xx"\} 1/);
    assert.match(figures.body, /thaw_proxy_requests_total\{by="proxy",status="502"\} 1/);

    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      const options = { host: '127.0.0.1', port: port(), servername: name(), ca: readFileSync(cert) };
      https.get({ ...options, headers: { Host: name() }, agent: false }, resolve).on('error', reject);
    });
    assert.equal(JSON.parse(await text(response)).host, name());
    assert.equal(response.httpVersion, '1.1');
  });

  it('is a WebSocket too', async () => {
    const sockets = new WebSocketServer({ noServer: true });
    server.on('upgrade', (request, socket, head) =>
      sockets.handleUpgrade(request, socket, head, (client) =>
        client.on('message', (data) => client.send(`${data}!`)),
      ),
    );
    const options = { headers: { Host: name() }, ca: readFileSync(cert), servername: name() };
    const client = new WebSocket(`wss://127.0.0.1:${port()}`, options);
    await once(client, 'open');
    client.send('hello');
    const [said] = await once(client, 'message');
    assert.equal(`${said}`, 'hello!');
    client.close();
    await once(client, 'close');
  });

  it('carries much at once, in both directions', async () => {
    handle = async (request, response) => {
      let size = 0;
      for await (const part of request) size += (part as Buffer).length;
      response.end(Buffer.alloc(size));
    };
    const own = session();
    const sizes = await Promise.all(
      Array.from({ length: 8 }, async (_, index) => {
        const stream = own.request({ ':method': 'POST', ':authority': name() });
        stream.end(Buffer.alloc((index + 1) * MIB));
        let size = 0;
        for await (const part of stream) size += part.length;
        return size;
      }),
    );
    assert.deepEqual(
      sizes,
      sizes.map((_, index) => (index + 1) * MIB),
    );
    own.close();
  });

  it('resets a stream whose sandbox is killed, and no other', async () => {
    handle = (_request, response) => void response.write('begun');
    const doomed = await sandboxAt(plane, guest);
    const own = session();
    const streams = [id, doomed].map((one) =>
      own.request({ ':authority': `${app.port}-${one}.sbx.localhost` }),
    );
    const closed = once(streams[1]!, 'close').catch((error) => error);
    streams[1]!.on('error', () => {});
    await Promise.all(streams.map((stream) => once(stream, 'data')));
    await plane.ask('DELETE', `/v1/sandboxes/${doomed}`);
    await closed;
    assert.equal(streams[1]!.rstCode, http2.constants.NGHTTP2_INTERNAL_ERROR);
    assert.equal(streams[0]!.closed, false);
    own.destroy();

    const another = await sandboxAt(plane, guest);
    const options = { host: '127.0.0.1', port: port(), servername: name(), ca: readFileSync(cert) };
    const headers = { Host: `${app.port}-${another}.sbx.localhost` };
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      https.get({ ...options, headers, agent: false }, resolve).on('error', reject);
    });
    const broken = assert.rejects(text(response), { code: 'ECONNRESET' });
    await plane.ask('DELETE', `/v1/sandboxes/${another}`);
    await broken;
  });

  it('goes to ports that speak TLS', async () => {
    const secure = https.createServer(
      { cert: readFileSync(cert), key: readFileSync(key) },
      (request, response) => response.end(`secret of ${request.headers.host}`),
    );
    await using own = await service(guest, secure);
    const ingress = JSON.stringify({ https_ports: [own.port] });
    const sandbox = await sandboxAt(plane, guest, { ingress });
    const host = `${own.port}-${sandbox}.sbx.localhost`;
    const told = await ask({ proxy: plane.running.proxy.url!, host });
    assert.equal(told.body, `secret of ${host}`);
  });

  it('survives who does not speak it', async () => {
    const socket = connect({
      host: '127.0.0.1',
      port: port(),
      rejectUnauthorized: false,
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1',
    });
    await assert.rejects(once(socket, 'secureConnect'));
    await assert.rejects(ask({ proxy: `http://127.0.0.1:${port()}` }));
    const own = session();
    const stream = own.request({ ':authority': '1-sb0.x.y' });
    const [no] = await once(stream, 'response');
    assert.equal(no[':status'], 502);
    own.destroy();
  });
});
