import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { jsonOf, TestPlane, until } from '../testing.ts';

describe('files', () => {
  let test: TestPlane;
  let id: string;
  before(async () => {
    test = await TestPlane.start();
    id = await test.createSandbox();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const path = (verb: string, sandbox = id) => `/v1/sandboxes/${sandbox}/files/${verb}`;
  const stored = (name: string) => test.agent.files.get(`${id}:${name}`);

  /** A form with its fields in the order given; a string is a field, bytes are a file. */
  async function send(verb: string, fields: [string, string | Buffer][], sandbox = id): Promise<Response> {
    const form = new FormData();
    for (const [name, value] of fields) {
      if (typeof value === 'string') form.append(name, value);
      else form.append(name, new Blob([value as Buffer<ArrayBuffer>]), 'upload');
    }
    return fetch(test.url + path(verb, sandbox), {
      method: 'POST',
      headers: { 'X-API-Key': test.key },
      body: form,
    });
  }

  it('travel both ways, of any size', async () => {
    for (const size of [0, 1, 65_536, 65_537, 5_000_000]) {
      const bytes = randomBytes(size);
      for (const stream of ['', 'stream/']) {
        const name = `/tmp/${stream ? 's' : 'b'}${size}`;
        const written = await send(`${stream}write`, [
          ['path', name],
          ['user', 'user'],
          ['file', bytes],
        ]);
        assert.equal(written.status, 204, await written.text());
        assert.ok(stored(name)?.equals(bytes));
        const read = await fetch(test.url + path(`${stream}read`), {
          method: 'POST',
          headers: { 'X-API-Key': test.key },
          body: JSON.stringify({ path: name }),
        });
        assert.equal(read.status, 200);
        assert.equal(read.headers.get('content-type'), 'application/octet-stream');
        assert.ok(Buffer.from(await read.arrayBuffer()).equals(bytes));
      }
    }
  });

  it('take path and file in any order when buffered, path first when streamed', async () => {
    const fields: [string, string | Buffer][] = [
      ['file', Buffer.from('content')],
      ['path', '/order'],
    ];
    assert.equal((await send('write', fields)).status, 204);
    assert.equal(stored('/order')?.toString(), 'content');
    const refused = await send('stream/write', [
      ['file', Buffer.from('other')],
      ['path', '/order2'],
    ]);
    assert.equal(refused.status, 400);
    assert.match((await jsonOf(refused)).error.message, /path: must come before file/);
    assert.equal(stored('/order2'), undefined);
  });

  it('refuse a field that comes too late to be heeded', async () => {
    const refused = await send('stream/write', [
      ['path', '/late'],
      ['file', Buffer.from('content')],
      ['user', 'user'],
    ]);
    assert.equal(refused.status, 400);
    assert.match((await jsonOf(refused)).error.message, /user: must come before file/);
    assert.equal(stored('/late'), undefined);
  });

  it('are listed, shown, moved and removed', async () => {
    const ask = (verb: string, body: unknown) => test.ask('POST', path(verb), body);
    const made = await ask('mkdir', { path: '/tree/sub' });
    assert.deepEqual([made.status, made.body.type], [201, 'directory']);
    assert.equal((await ask('mkdir', { path: '/tree/sub' })).status, 409);
    await send('write', [
      ['path', '/tree/a'],
      ['file', Buffer.from('abc')],
    ]);
    assert.deepEqual((await ask('stat', { path: '/tree/a' })).body, {
      name: 'a',
      type: 'file',
      path: '/tree/a',
      size: 3,
      mode: 0o644,
      permissions: '-rw-r--r--',
      owner: 'root',
      group: 'root',
      modified_at: '2023-11-14T22:13:20.123Z',
    });
    const moved = await ask('move', { source: '/tree/a', destination: '/tree/sub/b' });
    assert.equal(moved.body.path, '/tree/sub/b');
    const names = async (depth: number) =>
      (await ask('list', { path: '/tree', depth })).body.map((entry: { path: string }) => entry.path);
    assert.deepEqual(await names(1), ['/tree/sub']);
    assert.deepEqual(await names(2), ['/tree/sub', '/tree/sub/b']);
    assert.equal((await ask('remove', { path: '/tree' })).status, 204);
    assert.equal((await ask('remove', { path: '/tree' })).status, 204);
    for (const verb of ['stat', 'watch']) assert.equal((await ask(verb, { path: '/tree' })).status, 404);
    assert.equal((await ask('move', { source: '/tree/a', destination: '/b' })).status, 404);
    for (const body of [{ path: '' }, { path: '/x', depth: 0 }, { path: '/x', more: 1 }, {}, '{'])
      assert.equal((await ask('list', body)).status, 400);
  });

  it('are watched until the client leaves', async () => {
    await test.ask('POST', path('mkdir'), { path: '/watched' });
    const leave = new AbortController();
    const response = await fetch(test.url + path('watch'), {
      method: 'POST',
      headers: { 'X-API-Key': test.key },
      body: JSON.stringify({ path: '/watched' }),
      signal: leave.signal,
    });
    assert.equal(response.headers.get('content-type'), 'application/x-ndjson');
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    assert.equal((await reader.read()).value, '{"type":"start"}\n');
    assert.equal(test.agent.watches, 1);
    await send('write', [
      ['path', '/watched/new'],
      ['file', Buffer.from('x')],
    ]);
    assert.equal((await reader.read()).value, '{"type":"change","change":"write","name":"new"}\n');
    leave.abort();
    await until(() => test.agent.watches === 0);
  });

  it('refuse what is wrong', async () => {
    const file: [string, Buffer] = ['file', Buffer.from('x')];
    const cases: [[string, string | Buffer][], RegExp][] = [
      [[file], /path/],
      [[['path', '/x']], /file: missing/],
      [[['path', ''], file], /path/],
      [[['path', 'a\0b'], file], /path/],
      [[['path', 'a'.repeat(5000)], file], /path/],
      [[['path', 'a'.repeat(20_000)], file], /path/],
      [
        [
          ['path', '/x'],
          ['file', 'text'],
        ],
        /file: must be sent as a file/,
      ],
      [[['path', '/x'], ['mode', '7'], file], /mode/],
      [
        [
          ['path', '/x'],
          ['other', Buffer.from('x')],
        ],
        /other/,
      ],
      [[['__proto__', 'x'], file], /./],
    ];
    const before = test.agent.files.size;
    for (const verb of ['write', 'stream/write']) {
      for (const [fields, message] of cases) {
        const answer = await send(verb, fields);
        const body = await jsonOf(answer);
        assert.equal(
          answer.status,
          400,
          `${verb} ${JSON.stringify(fields).slice(0, 80)}: ${JSON.stringify(body)}`,
        );
        assert.equal(body.error.code, 'invalid_request');
        assert.match(body.error.message, message);
      }
      const json = await test.ask('POST', path(verb), { path: '/x' });
      assert.equal(json.status, 400);
      assert.match(json.body.error.message, /multipart/);
      const noBoundary = await test.ask('POST', path(verb), 'x', { 'Content-Type': 'multipart/form-data' });
      assert.equal(noBoundary.status, 400, JSON.stringify(noBoundary.body));
      assert.equal((await send(verb, [['path', '/x'], file], 'sbaaaaaaaaaaaaaaaaaaaa')).status, 404);
    }
    assert.equal(test.agent.files.size, before);
    for (const verb of ['read', 'stream/read']) {
      for (const body of [{}, { path: 5 }, { path: '' }, { path: '/x\0' }, { path: '/x', x: 1 }, '{']) {
        assert.equal((await test.ask('POST', path(verb), body)).status, 400, JSON.stringify(body));
      }
    }
  });

  it('answer 404 for a file that is not there, before any body', async () => {
    for (const verb of ['read', 'stream/read']) {
      const answer = await test.ask('POST', path(verb), { path: '/nosuch' });
      assert.equal(answer.status, 404);
      assert.equal(answer.body.error.code, 'not_found');
      assert.match(answer.body.error.message, /nosuch/);
    }
  });

  it('are refused buffered when larger than 100 MiB, and nothing is written', async () => {
    const answer = await send('write', [
      ['path', '/big'],
      ['file', Buffer.alloc(100 * 1024 * 1024 + 1)],
    ]);
    assert.equal(answer.status, 413);
    assert.equal((await jsonOf(answer)).error.code, 'too_large');
    assert.equal(stored('/big'), undefined);
    // The same without a Content-Length.
    const parts = async function* () {
      yield Buffer.from('--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n/big\r\n');
      yield Buffer.from('--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n');
      for (let i = 0; i < 101; i++) yield Buffer.alloc(1024 * 1024);
      yield Buffer.from('\r\n--b--\r\n');
    };
    const chunked = await fetch(test.url + path('write'), {
      method: 'POST',
      headers: { 'X-API-Key': test.key, 'Content-Type': 'multipart/form-data; boundary=b' },
      body: ReadableStream.from(parts()),
      duplex: 'half',
    } as RequestInit);
    assert.equal(chunked.status, 413);
    assert.equal(stored('/big'), undefined);
  });

  it('break visibly when the guest goes away in the middle', async () => {
    test.agent.files.set(`${id}:/x.broken`, Buffer.alloc(200_000));
    const buffered = await test.ask('POST', path('read'), { path: '/x.broken' });
    assert.equal(buffered.status, 500);
    assert.doesNotMatch(JSON.stringify(buffered.body), /the guest is gone/);
    const streamed = await fetch(test.url + path('stream/read'), {
      method: 'POST',
      headers: { 'X-API-Key': test.key },
      body: JSON.stringify({ path: '/x.broken' }),
    });
    assert.equal(streamed.status, 200);
    await assert.rejects(streamed.arrayBuffer());
  });

  it('are not complete when the client breaks off', async () => {
    for (const verb of ['stream/write', 'write']) {
      const calls = test.agent.count('writeFileStream');
      const upload = request(test.url + path(verb), {
        method: 'POST',
        headers: { 'X-API-Key': test.key, 'Content-Type': 'multipart/form-data; boundary=b' },
      });
      upload.on('error', () => {});
      upload.write('--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n/half\r\n');
      upload.write('--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n');
      upload.write(Buffer.alloc(300_000));
      if (verb === 'stream/write') await until(() => test.agent.count('writeFileStream') > calls);
      const closed = new Promise((resolve) => upload.on('close', resolve));
      upload.destroy();
      await closed;
    }
    // A form cut short without the connection breaking.
    const { hostname, port } = new URL(test.url);
    const body =
      '--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n/half\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nabc';
    for (const verb of ['stream/write', 'write']) {
      const socket = connect(Number(port), hostname);
      socket.write(
        `POST ${path(verb)} HTTP/1.1\r\nHost: x\r\nX-API-Key: ${test.key}\r\nConnection: close\r\n` +
          `Content-Type: multipart/form-data; boundary=b\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
      const [answer] = await once(socket, 'data');
      assert.match(answer.toString(), /^HTTP\/1.1 400/);
      socket.destroy();
    }
    assert.equal(stored('/half'), undefined);
  });

  it('need a running sandbox', async () => {
    const paused = await test.createSandbox({ auto_resume: false });
    await test.ask('POST', `/v1/sandboxes/${paused}/pause`);
    for (const verb of ['read', 'stream/read']) {
      assert.equal((await test.ask('POST', path(verb, paused), { path: '/x' })).status, 409);
    }
    for (const verb of ['write', 'stream/write']) {
      const answer = await send(
        verb,
        [
          ['path', '/x'],
          ['file', Buffer.alloc(1_000_000)],
        ],
        paused,
      );
      assert.equal(answer.status, 409);
    }
  });
});
