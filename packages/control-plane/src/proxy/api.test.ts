import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { TestPlane } from '../testing.ts';

interface Answer {
  status: number;
  body: Record<string, unknown>;
}

describe('the API at api.{domain}', () => {
  const folder = mkdtempSync(join(tmpdir(), 'thaw-proxy-'));
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  let plane: TestPlane;
  before(async () => {
    const subject = ['-subj', '/CN=sbx', '-addext', 'subjectAltName=DNS:*.sbx.localhost'];
    const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    execFileSync('openssl', [...made, '-days', '2', ...subject, '-keyout', key, '-out', cert], {
      stdio: 'ignore',
    });
    plane = await TestPlane.start({ proxy: { cert, key } });
  });
  after(async () => {
    await plane?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  const portOf = (url: string) => Number(new URL(url).port);
  const create = JSON.stringify({ templateID: 'minimal', timeout: 60 });
  const headersOf = (port: number) => ({
    host: `api.sbx.localhost:${port}`,
    'x-api-key': plane.key,
    'content-type': 'application/json',
  });

  /** By HTTP/1.1, the body in chunks, after a word that it may come. */
  async function send(via: typeof http | typeof https, url: string): Promise<Answer> {
    const port = portOf(url);
    const request = via.request({
      host: '127.0.0.1',
      port,
      path: '/sandboxes',
      method: 'POST',
      headers: { ...headersOf(port), expect: '100-continue' },
      ca: readFileSync(cert),
      servername: 'api.sbx.localhost',
    });
    request.once('continue', () => request.end(create));
    request.flushHeaders();
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    return { status: response.statusCode!, body: (await json(response)) as Answer['body'] };
  }

  it('is there in clear text and by TLS', async () => {
    const { url, tlsUrl } = plane.running.proxy;
    for (const answer of [await send(http, url!), await send(https, tlsUrl!)]) {
      assert.equal(answer.status, 201, JSON.stringify(answer.body));
      assert.match(String(answer.body.sandboxID), /^[a-z0-9]+$/);
    }
  });

  it('is there by HTTP/2', async () => {
    const port = portOf(plane.running.proxy.tlsUrl!);
    const session = http2.connect(`https://127.0.0.1:${port}`, {
      ca: readFileSync(cert),
      servername: 'api.sbx.localhost',
    });
    const { host: _, ...headers } = headersOf(port);
    const ask = async (method: string, path: string, body?: string) => {
      const own = { ':method': method, ':path': path, ':authority': `api.sbx.localhost:${port}` };
      const stream = session.request({ ...own, ...headers });
      stream.end(body);
      const [answer] = await once(stream, 'response');
      const status = answer[':status'] as number;
      return { status, body: status === 204 ? {} : ((await json(stream)) as Answer['body']) };
    };
    const made = await ask('POST', '/v2/sandboxes', create);
    assert.equal(made.status, 201, JSON.stringify(made.body));
    const path = `/sandboxes/${made.body.sandboxID}`;
    assert.equal((await ask('GET', path)).body.sandboxID, made.body.sandboxID);
    assert.deepEqual(await ask('DELETE', path), { status: 204, body: {} });
    assert.equal((await ask('GET', path)).body.code, 404);
    session.close();
  });
});
