/** Heads that no honest client sends: the proxy stays, and guests see what it let through and nothing else. */
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { TestPlane } from '../testing.ts';
import { ask, newAddress, type Service, sandboxAt, sayRaw, service } from './fixture.ts';

const RUNS = 400;
const ANSWERED_WITHIN_MS = 3000;

describe('the proxy, given nonsense,', () => {
  let plane: TestPlane;
  let app: Service;
  let agent: Service;
  let proxy: string;
  let id: string;
  /** Targets that guests saw. */
  const seen: { port: number; url: string; method: string }[] = [];
  before(async () => {
    plane = await TestPlane.start({ proxy: true });
    proxy = plane.running.proxy.url!;
    const guest = newAddress();
    const listener: http.RequestListener = (request, response) => {
      seen.push({ port: request.socket.localPort!, url: request.url!, method: request.method! });
      request.resume();
      request.on('end', () => response.writeHead(200, { 'X-Guest': '1' }).end());
    };
    app = await service(guest, http.createServer(listener));
    agent = await service(guest, http.createServer(listener), 49_983);
    id = await sandboxAt(plane, guest);
  });
  after(async () => {
    await app?.[Symbol.asyncDispose]();
    await agent?.[Symbol.asyncDispose]();
    await plane?.[Symbol.asyncDispose]();
  });

  it('answers or hangs up, and guests see no request more than was answered', async () => {
    const own = fc.constantFrom('$APP', '$AGENT', '$HIDDEN');
    const host = fc.oneof(
      own,
      fc.constantFrom('localhost', '127.0.0.1', '', 'x', 'a.b', '[::1]'),
      fc.string(),
    );
    const target = fc.oneof(
      fc.constantFrom(
        '/',
        '/x?y',
        '/init',
        '//init',
        '/%69nit',
        '/./init',
        '*',
        'x',
        'http://a.b/init',
        '/init HTTP/1.0',
      ),
      fc.constantFrom('http://$APP/', 'http://$AGENT/init'),
      fc.webPath().map((path) => `/${path}`),
    );
    const header = fc.oneof(
      fc.constantFrom(
        'Content-Length: 0',
        'Content-Length: 5',
        'Content-Length: 5, 5',
        'Content-Length: -1',
        'Content-Length : 5',
        'Transfer-Encoding: chunked',
        'Transfer-Encoding: identity',
        'Transfer-Encoding: gzip, chunked',
        'Transfer-Encoding : chunked',
        'Transfer-Encoding:\tchunked',
        'Connection: close, Host, E2b-Sandbox-Id',
        'Connection: Upgrade',
        'Connection: keep-alive, Transfer-Encoding, Content-Length',
        'Upgrade: websocket',
        'Upgrade: h2c',
        'Expect: 100-continue',
        'Expect: nonsense',
        'Host: $AGENT',
        'E2b-Sandbox-Id: $ID',
        'E2b-Sandbox-Port: 49983',
        'E2b-Sandbox-Port: 49982',
        ' folded',
        'X: a\rb',
        'X: \x80\xff',
      ),
      fc.string().map((text) => `X-Any: ${text.replace(/[\r\n]/g, '')}`),
    );
    const request = fc.record({
      method: fc.constantFrom('GET', 'POST', 'PUT', 'OPTIONS', 'HEAD', 'CONNECT', 'TRACE', 'PRI', 'get'),
      target,
      host,
      headers: fc.array(header, { maxLength: 5 }),
      body: fc.constantFrom(
        '',
        'hello',
        '5\r\nhello\r\n0\r\n\r\n',
        '0\r\n\r\nPOST /init HTTP/1.1\r\nHost: $AGENT\r\n\r\n',
      ),
    });
    const names = (): Record<string, string> => ({
      $APP: `${app.port}-${id}.x.y`,
      $AGENT: `49983-${id}.x.y`,
      $HIDDEN: `49982-${id}.x.y`,
      $ID: id,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(request, { minLength: 1, maxLength: 3 }), async (requests) => {
        const head = (each: (typeof requests)[number]) =>
          [
            `${each.method} ${each.target} HTTP/1.1`,
            `Host: ${each.host}`,
            ...each.headers,
            '',
            each.body,
          ].join('\r\n');
        const bytes = requests
          .map(head)
          .join('')
          .replace(/\$[A-Z]+/g, (name) => names()[name] ?? name);
        seen.length = 0;
        const answersIn = (heard: string) => heard.match(/^X-Guest: 1\r$/gm)?.length ?? 0;
        const begun = performance.now();
        // On a busy machine an answer takes its time.
        const isAnswered = (heard: string) =>
          seen.length <= answersIn(heard) || performance.now() - begun > ANSWERED_WITHIN_MS;
        const heard = await sayRaw(proxy, Buffer.from(bytes, 'latin1'), 40, isAnswered);
        const answered = answersIn(heard);
        // One may still have been under way when the client hung up; a head that is none cuts all before it.
        const underWay = /^HTTP\/1.1 400 /m.test(heard) || heard === '' ? requests.length : 1;
        assert.ok(seen.length <= answered + underWay, `${seen.length} seen, ${answered} answered`);
        for (const { port, url } of seen)
          if (port === 49_983) assert.doesNotMatch(decodeURIComponent(url.split('?')[0]!), /^[/.]*init/i);
        for (const line of heard.match(/^HTTP\/.*$/gm) ?? []) assert.match(line, /^HTTP\/1.1 (1|2|4|5)\d\d /);
      }),
      { numRuns: RUNS },
    );
    assert.equal((await ask({ proxy, host: names().$APP! })).status, 200);
  });
});
