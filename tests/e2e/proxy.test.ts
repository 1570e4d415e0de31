/** Ports of real guests through the proxy of a real `thaw up`. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const MIB = 1024 * 1024;
const BIG = 256 * MIB;
/** What the control plane's process may take more while that goes through it. */
const GROWTH_BYTES_MAX = 120 * MIB;

interface Made {
  sandboxID: string;
  envdAccessToken: string;
  trafficAccessToken?: string | null;
}

/** In the guest: WebSockets, downloads, uploads and streams that do not end, in Python's own library. */
const SERVICE = readFileSync(path.join(import.meta.dirname, 'guest/ports.py'), 'utf8');

describe('the proxy', () => {
  const folder = mkdtempSync('/tmp/tw-ca-');
  const file = (name: string) => path.join(folder, name);
  let thaw: TestThaw;
  before(async () => {
    certify(folder);
    thaw = await startThaw({
      env: {
        THAW_DOMAIN: 'sbx.localhost:3443',
        THAW_PROXY_TLS_LISTEN: '127.0.0.1:0',
        THAW_PROXY_TLS_CERT: file('cert.pem'),
        THAW_PROXY_TLS_KEY: file('key.pem'),
      },
    });
  });
  after(async () => {
    await thaw?.stop();
    rmSync(folder, { recursive: true });
  });

  const create = async (wish: object = {}): Promise<Made> => {
    const { status, body } = await thaw.api<Made>('POST', '/v2/sandboxes', { templateID: 'base', ...wish });
    assert.equal(status, 201, JSON.stringify(body));
    return body;
  };
  const pause = async (id: string, body: object = {}) =>
    assert.equal((await thaw.api('POST', `/sandboxes/${id}/pause`, body)).status, 204);
  const kill = async (id: string) => assert.equal((await thaw.api('DELETE', `/sandboxes/${id}`)).status, 204);
  const serve = (id: string, port = 8000) =>
    thaw.sh(
      id,
      `cat > /tmp/ports.py <<'END'\n${SERVICE}\nEND\nsetsid python3 /tmp/ports.py ${port} >/tmp/log 2>&1 </dev/null &
      until ss -ltn | grep -q ':${port} '; do sleep 0.1; done`,
    );
  const ask = (id: string, port: number, where: string, options: http.RequestOptions = {}) =>
    open(`${thaw.proxyUrl}${where}`, {
      ...options,
      headers: { Host: `${port}-${id}.sbx.localhost`, ...(options.headers as object) },
    });
  const status = async (id: string, port: number, where: string, headers: object = {}) => {
    const response = await ask(id, port, where, { headers: headers as http.OutgoingHttpHeaders });
    return { status: response.statusCode ?? 0, body: await text(response) };
  };
  const resumes = async (id: string) => {
    const { body } = await thaw.api<{ verb: string; outcome: string }[]>('GET', `/v1/sandboxes/${id}/events`);
    return body.filter(({ verb, outcome }) => verb === 'resume' && outcome === 'done').length;
  };

  it('carries HTTP, WebSockets and much data, by little memory', async () => {
    const { sandboxID: id, envdAccessToken } = await create();
    await serve(id);
    const hello = await status(id, 8000, '/hello?x=%2F');
    assert.deepEqual(hello, { status: 200, body: 'GET /hello?x=%2F' });
    assert.equal((await status(id, 49_983, '/health')).status, 204);
    assert.equal((await status(id, 49_983, '/envs')).status, 401);
    assert.equal((await status(id, 49_983, '/envs', { 'X-Access-Token': envdAccessToken })).status, 200);
    assert.equal((await status(id, 49_983, '/init', { 'X-Access-Token': envdAccessToken })).status, 404);
    const hidden = await status(id, 49_982, '/health');
    assert.equal(hidden.status, 502);
    assert.match(hidden.body, /port is not open/);
    const closed = await status(id, 8001, '/');
    assert.deepEqual(JSON.parse(closed.body), {
      sandboxId: id,
      message: 'The sandbox is running but port is not open',
      port: 8001,
      code: 502,
    });

    const socket = new WebSocket(thaw.proxyUrl.replace('http', 'ws'), {
      headers: { Host: `8000-${id}.sbx.localhost` },
    });
    await once(socket, 'open');
    socket.send('hello');
    const [said] = await once(socket, 'message');
    assert.equal(`${said}`, 'hello');
    socket.close();
    await once(socket, 'close');

    const { plane } = await thaw.agentPids();
    const before = rss(plane);
    let most = before;
    const watch = setInterval(() => {
      most = Math.max(most, rss(plane));
    }, 50);
    const download = await ask(id, 8000, `/zeros?${BIG}`);
    const sum = createHash('sha256');
    for await (const piece of download) sum.update(piece as Buffer);
    const expected = createHash('sha256');
    for (let size = 0; size < BIG; size += MIB) expected.update(Buffer.alloc(MIB));
    const digest = expected.digest('hex');
    assert.equal(sum.digest('hex'), digest);
    const target = new URL(thaw.proxyUrl);
    const upload = http.request({
      ...{ host: target.hostname, port: target.port, method: 'POST', path: '/sum' },
      headers: { Host: `8000-${id}.sbx.localhost` },
    });
    const answered = once(upload, 'response') as Promise<[http.IncomingMessage]>;
    for (let size = 0; size < BIG; size += MIB)
      if (!upload.write(Buffer.alloc(MIB))) await once(upload, 'drain');
    upload.end();
    assert.equal(await text((await answered)[0]), digest);
    clearInterval(watch);
    assert.ok(most - before < GROWTH_BYTES_MAX, `${Math.round((most - before) / MIB)} MiB more`);
    await kill(id);
  });

  it('breaks what is open when its sandbox is paused or killed', async () => {
    const { sandboxID: id } = await create();
    await serve(id);
    const first = await ask(id, 8000, '/stream');
    await once(first, 'data');
    const paused = assert.rejects(text(first), { code: 'ECONNRESET' });
    await pause(id);
    await paused;
    const gone = { sandboxId: id, message: 'The sandbox was not found', code: 502 };
    assert.deepEqual(JSON.parse((await status(id, 49_983, '/health')).body), gone);
    const { status: resumed } = await thaw.api('POST', `/v2/sandboxes/${id}/connect`, {});
    assert.equal(resumed, 201);
    assert.equal((await status(id, 8000, '/again')).body, 'GET /again');

    const second = await ask(id, 8000, '/stream');
    await once(second, 'data');
    const killed = assert.rejects(text(second), { code: 'ECONNRESET' });
    await kill(id);
    await killed;
    assert.deepEqual(JSON.parse((await status(id, 49_983, '/health')).body), gone);
  });

  it('wakes who may be woken, once', async () => {
    const made = await create({ timeout: 300, autoPause: true, autoResume: { enabled: true } });
    const { sandboxID: id, envdAccessToken: token } = made;
    await serve(id);
    assert.equal((await status(id, 8000, '/')).status, 200);
    await pause(id);
    for (const headers of [{}, { 'X-Access-Token': 'wrong' }]) {
      const refused = await status(id, 49_983, '/health', headers);
      assert.equal(refused.status, 403);
      assert.equal(JSON.parse(refused.body).sandboxId, id);
    }
    assert.equal((await status(id, 49_982, '/health')).status, 502);
    assert.equal(await resumes(id), 0);
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        index % 2 === 0
          ? status(id, 8000, `/${index}`)
          : status(id, 49_983, '/health', { 'X-Access-Token': token }),
      ),
    );
    for (const [index, answer] of answers.entries())
      assert.deepEqual(
        answer,
        index % 2 === 0 ? { status: 200, body: `GET /${index}` } : { status: 204, body: '' },
      );
    assert.equal(await resumes(id), 1);

    await pause(id, { memory: false });
    const disk = await status(id, 49_983, '/health', { 'X-Access-Token': token });
    assert.match(disk.body, /was not found/);
    assert.equal(await resumes(id), 1);
    await kill(id);
  });

  it('does not wake what its owner did not allow', async () => {
    const { sandboxID: id, envdAccessToken } = await create({ timeout: 300, autoPause: true });
    await pause(id);
    for (const port of [8000, 49_983]) {
      const answer = await status(id, port, '/health', { 'X-Access-Token': envdAccessToken });
      assert.equal(answer.status, 502);
    }
    assert.equal(await resumes(id), 0);
    await kill(id);

    const native = await thaw.sdk.sandboxes.create({ timeout_sec: 0, template: 'base' });
    await serve(native.id);
    await thaw.sdk.sandboxes.pause(native.id);
    assert.equal((await status(native.id, 8000, '/awake')).body, 'GET /awake');
    await thaw.sdk.sandboxes.delete(native.id);
  });

  it('is HTTPS, in both versions of HTTP, for names below the domain', async () => {
    const { sandboxID: id } = await create();
    await serve(id);
    const ca = readFileSync(file('ca.pem'));
    const { port } = new URL(thaw.proxyTlsUrl);
    const name = `8000-${id}.sbx.localhost`;
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      const options = { host: '127.0.0.1', port, servername: name, ca, path: '/tls', agent: false as const };
      https.get({ ...options, headers: { Host: `${name}:${port}` } }, resolve).on('error', reject);
    });
    assert.equal(await text(response), 'GET /tls');
    const session = http2.connect(`https://127.0.0.1:${port}`, { ca, servername: name });
    const stream = session.request({ ':path': '/stream', ':authority': `${name}:${port}` });
    stream.on('error', () => {});
    await once(stream, 'data');
    const closed = once(stream, 'close').catch(() => {});
    await kill(id);
    await closed;
    assert.equal(stream.rstCode, http2.constants.NGHTTP2_INTERNAL_ERROR);
    session.destroy();
    assert.ok((await stat(thaw, 'thaw_proxy_requests_total')) > 0);
  });

  it('is there again, at the same port, when the control plane is', async () => {
    const { sandboxID: id } = await create();
    await serve(id);
    const { plane } = await thaw.agentPids();
    process.kill(plane, 'SIGKILL');
    await eventually(async () => assert.equal((await status(id, 8000, '/back')).body, 'GET /back'));
    await kill(id);
  });
});

function open(url: string, options: http.RequestOptions): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    http
      .request(url, { ...options, agent: false })
      .on('response', resolve)
      .on('error', reject)
      .end();
  });
}

function rss(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
}

/** All of a figure's lines together. */
async function stat(thaw: TestThaw, name: string): Promise<number> {
  const answer = await fetch(`${thaw.url}/metrics`, { headers: { 'X-API-Key': thaw.key } });
  const lines = (await answer.text()).split('\n').filter((line) => line.startsWith(name));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

/** An authority of the test's own, and a certificate of it for every name below `sbx.localhost`. */
function certify(folder: string): void {
  chmodSync(folder, 0o755);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'ignore' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', ...key, '-days', '2', '-subj', '/CN=test', '-keyout', 'ca.key', '-out', 'ca.pem');
  openssl('req', ...key, '-subj', '/CN=sbx.localhost', '-keyout', 'key.pem', '-out', 'request.pem');
  writeFileSync(path.join(folder, 'names'), 'subjectAltName=DNS:*.sbx.localhost\n');
  const authority = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2'];
  openssl('x509', '-req', '-in', 'request.pem', ...authority, '-extfile', 'names', '-out', 'cert.pem');
}
