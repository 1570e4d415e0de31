import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { ThawError } from '@thaw/api';
import { WebSocket } from 'ws';
import { TestPlane, until } from '../testing.ts';

// biome-ignore lint/suspicious/noExplicitAny: a message is what the test says it is
type Message = any;

/** One stream: everything it said, and how it was closed. */
class Stream {
  readonly socket: WebSocket;
  readonly messages: Message[] = [];
  readonly closed: Promise<{ code: number; reason: string }>;

  constructor(url: string, headers: Record<string, string>) {
    this.socket = new WebSocket(url.replace('http', 'ws'), { headers });
    this.socket.on('message', (data) => this.messages.push(JSON.parse(data.toString())));
    this.socket.on('error', () => {});
    this.closed = new Promise((resolve) => {
      this.socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() }));
    });
  }

  async send(...messages: unknown[]): Promise<this> {
    if (this.socket.readyState === WebSocket.CONNECTING) await once(this.socket, 'open');
    for (const message of messages) {
      this.socket.send(typeof message === 'string' ? message : JSON.stringify(message));
    }
    return this;
  }

  async said(type: string): Promise<Message> {
    await until(() => this.messages.some((message) => message.type === type));
    return this.messages.find((message) => message.type === type);
  }

  output(type: 'stdout' | 'stderr'): Buffer {
    const chunks = this.messages.filter((message) => message.type === type);
    return Buffer.concat(
      chunks.map(({ data, encoding }) => Buffer.from(data, encoding === 'base64' ? 'base64' : 'utf8')),
    );
  }
}

describe('exec', () => {
  let test: TestPlane;
  let id: string;
  before(async () => {
    test = await TestPlane.start({ pingEveryMs: 100 });
    id = await test.createSandbox();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const path = (sandbox = id) => `/v1/sandboxes/${sandbox}/exec`;
  const open = (headers: Record<string, string> = { 'X-API-Key': test.key }, sandbox = id) =>
    new Stream(`${test.url}${path(sandbox)}/stream`, headers);
  const shell = (script: string, more = {}) => ({ type: 'start', cmd: 'sh', args: ['-c', script], ...more });

  it('answers output, exit code, environment, folder and standard input', async () => {
    const answer = await test.ask('POST', path(), {
      cmd: 'sh',
      args: ['-c', 'pwd; echo "$NAME"; cat; echo oops >&2; exit 3'],
      cwd: '/usr',
      env: { NAME: 'höh' },
      stdin: 'aW4K',
      stdin_encoding: 'base64',
    });
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    const { duration_ms, ...rest } = answer.body;
    assert.ok(duration_ms >= 0);
    assert.deepEqual(rest, {
      sandbox_id: id,
      cmd: 'sh',
      stdout: '/usr\nhöh\nin\n',
      stderr: 'oops\n',
      exit_code: 3,
      encoding: 'utf-8',
    });
  });

  it('answers base64 for what is not text', async () => {
    const answer = await test.ask('POST', path(), { cmd: 'printf', args: ['\\377\\000'] });
    assert.equal(answer.body.encoding, 'base64');
    assert.deepEqual([...Buffer.from(answer.body.stdout, 'base64')], [255, 0]);
  });

  it('refuses what is wrong', async () => {
    for (const body of [
      {},
      { cmd: '' },
      { cmd: 5 },
      { cmd: 'a\0b' },
      { cmd: 'true', args: 'x' },
      { cmd: 'true', args: [1] },
      { cmd: 'true', timeout_sec: -1 },
      { cmd: 'true', timeout_sec: 1e9 },
      { cmd: 'true', user: '' },
      { cmd: 'true', shell: true },
      '{',
    ]) {
      const answer = await test.ask('POST', path(), body);
      assert.equal(answer.status, 400, JSON.stringify(body));
      assert.equal(answer.body.error.code, 'invalid_request');
    }
    test.agent.failNext('exec', new ThawError('timeout', 'the command took longer than 1 s'));
    const late = await test.ask('POST', path(), { cmd: 'true', timeout_sec: 1 });
    assert.equal(late.status, 504);
    assert.equal(late.body.error.code, 'timeout');
  });

  it('refuses an output that no answer should carry', async () => {
    const answer = await test.ask('POST', path(), { cmd: 'head', args: ['-c', '70000000', '/dev/zero'] });
    assert.equal(answer.status, 413, JSON.stringify(answer.body).slice(0, 200));
    assert.match(answer.body.error.message, /exec\/stream/);
  });

  it('counts as activity', async () => {
    const before = (await test.ask('GET', `/v1/sandboxes/${id}`)).body.last_active_at;
    await test.ask('POST', path(), { cmd: 'true' });
    await until(async () => (await test.ask('GET', `/v1/sandboxes/${id}`)).body.last_active_at > before);
  });

  it('streams output and the exit code, then closes with a reason', async () => {
    const stream = await open().send(shell('echo out; echo err >&2; exit 7'));
    assert.deepEqual(await stream.closed, { code: 1000, reason: 'exit' });
    assert.equal(stream.messages[0].type, 'start');
    assert.ok(stream.messages[0].pid > 0);
    assert.equal(stream.output('stdout').toString(), 'out\n');
    assert.equal(stream.output('stderr').toString(), 'err\n');
    assert.deepEqual(stream.messages.at(-1), { type: 'exit', exit_code: 7 });
  });

  it('keeps characters that are split over chunks, and bytes that are no text', async () => {
    const split = await open().send(shell("printf 'a\\342\\202'; sleep 0.2; printf '\\254b\\377\\000'"));
    await split.closed;
    assert.deepEqual(split.output('stdout'), Buffer.from([0x61, 0xe2, 0x82, 0xac, 0x62, 0xff, 0x00]));
    const random = await open().send(
      shell('f=$(mktemp); head -c 3000000 /dev/urandom >$f; cat $f; cat $f >&2; rm $f'),
    );
    await random.closed;
    assert.equal(random.output('stdout').length, 3_000_000);
    assert.ok(random.output('stdout').equals(random.output('stderr')));
  });

  it('takes standard input, text and bytes, to its end', async () => {
    const stream = await open().send(
      shell('cat', { stdin: true }),
      { type: 'stdin', data: 'hällo ' },
      { type: 'stdin', data: Buffer.from([0, 255, 254]).toString('base64'), encoding: 'base64' },
    );
    await until(() => stream.output('stdout').length === 10);
    await stream.send({ type: 'stdin_close' });
    await stream.closed;
    assert.deepEqual(
      stream.output('stdout'),
      Buffer.concat([Buffer.from('hällo '), Buffer.from([0, 255, 254])]),
    );
    const large = 'x'.repeat(500_000);
    const pipe = await open().send(shell('wc -c', { stdin: true }));
    for (let i = 0; i < 10; i++) await pipe.send({ type: 'stdin', data: large });
    await pipe.send({ type: 'stdin_close' });
    await pipe.closed;
    assert.equal(pipe.output('stdout').toString().trim(), '5000000');
  });

  it('stops the process and still tells its exit code', async () => {
    const stream = await open().send(shell('sleep 100 & wait'));
    await stream.said('start');
    await stream.send({ type: 'stop' });
    assert.equal((await stream.said('exit')).exit_code, 143);
    assert.equal((await stream.closed).code, 1000);
    const deaf = await open().send(shell("trap '' TERM; echo ready; while :; do sleep 1; done"));
    await deaf.said('stdout');
    await deaf.send({ type: 'stop' });
    assert.equal((await deaf.said('exit')).exit_code, 137);
  });

  it('stops the process of a client that went away', async () => {
    const stream = await open().send(shell('sleep 100'));
    const { pid } = await stream.said('start');
    stream.socket.terminate();
    await until(() => !test.agent.processes.has(pid));
  });

  it('slows a process whose client does not read', async () => {
    const stream = await open().send(shell('yes'));
    await stream.said('stdout');
    stream.socket.pause();
    const before = process.memoryUsage().rss;
    await new Promise((resolve) => setTimeout(resolve, 1000));
    assert.ok(process.memoryUsage().rss - before < 200 * 1024 * 1024);
    stream.socket.terminate();
    await until(() => test.agent.processes.size === 0);
  });

  it('answers before the upgrade what is wrong before it', async () => {
    const refused = async (headers: Record<string, string>, sandbox = id) => {
      const { socket } = open(headers, sandbox);
      const [, response] = await once(socket, 'unexpected-response');
      const chunks: Buffer[] = [];
      for await (const chunk of response) chunks.push(chunk);
      socket.terminate();
      return { status: response.statusCode, body: JSON.parse(Buffer.concat(chunks).toString()) };
    };
    const key = { 'X-API-Key': test.key };
    assert.equal((await refused({ 'X-API-Key': 'wrong' })).status, 401);
    const unknown = await refused(key, 'sbaaaaaaaaaaaaaaaaaaaa');
    assert.equal(unknown.status, 404);
    assert.equal(unknown.body.error.code, 'not_found');
    assert.equal((await refused({ ...key, Origin: 'http://evil.example' })).status, 403);
    const paused = await test.createSandbox({ auto_resume: false });
    await test.ask('POST', `/v1/sandboxes/${paused}/pause`);
    const wrong = await refused(key, paused);
    assert.equal(wrong.status, 409);
    assert.match(wrong.body.error.message, /paused/);
    assert.equal((await test.ask('GET', `${path()}/stream`)).status, 426);
  });

  it('takes the key as the first message', async () => {
    const stream = await open({ Origin: 'http://allowed.example' }).send(
      { type: 'auth', key: test.key },
      shell('echo hi'),
    );
    await stream.closed;
    assert.equal(stream.output('stdout').toString(), 'hi\n');
    for (const first of [{ type: 'auth', key: 'wrong' }, shell('echo no'), 'nonsense']) {
      const refused = await open({}).send(first, shell('echo no'));
      const { code, reason } = await refused.closed;
      assert.equal(code, 1008);
      assert.match(reason, /unauthenticated|invalid_request/);
      assert.equal(refused.messages.length, 1);
    }
    const unknown = await open({}, 'sbaaaaaaaaaaaaaaaaaaaa').send({ type: 'auth', key: test.key });
    assert.deepEqual(await unknown.closed, { code: 1008, reason: 'not_found' });
  });

  it('tells what is wrong with a message', async () => {
    for (const first of [
      '{',
      '[]',
      { type: 'stop' },
      { type: 'start' },
      { type: 'start', cmd: '' },
      shell('true', { x: 1 }),
    ]) {
      const stream = await open().send(first);
      assert.equal((await stream.said('error')).code, 'invalid_request');
      assert.deepEqual(await stream.closed, { code: 1008, reason: 'invalid_request' });
    }
    const missing = await open().send({ type: 'start', cmd: '/no/such/program' });
    assert.match((await missing.said('error')).data, /cannot be started/);
    assert.equal((await missing.closed).code, 1008);

    const later = await open().send(shell('cat', { stdin: true }), { type: 'what' }, 'nonsense', {
      type: 'stdin_close',
    });
    await later.closed;
    assert.equal(later.messages.filter((message) => message.type === 'error').length, 2);
    assert.deepEqual(later.messages.at(-1), { type: 'exit', exit_code: 0 });

    const binary = open();
    await once(binary.socket, 'open');
    binary.socket.send(Buffer.from([1, 2]));
    assert.equal((await binary.closed).code, 1008);
  });

  it('cuts off a peer that answers no ping', async () => {
    const stream = open();
    stream.socket.on('ping', () => {});
    // biome-ignore lint/suspicious/noExplicitAny: ws answers pings by itself unless told not to
    (stream.socket as any)._autoPong = false;
    await stream.send(shell('sleep 100'));
    await stream.said('start');
    assert.equal((await stream.closed).code, 1006);
    await until(() => test.agent.processes.size === 0);
  });

  it('leaves a peer alone that is slow to read what there is', async () => {
    const stream = await open().send(shell('head -c 20000000 /dev/zero; echo end'));
    await stream.said('stdout');
    stream.socket.pause();
    // Many pings pass meanwhile.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    stream.socket.resume();
    assert.equal((await stream.closed).code, 1000);
    assert.equal(stream.output('stdout').length, 20_000_004);
  });

  it('hears a stop behind input that nobody reads', async () => {
    const stream = await open().send(shell('sleep 100', { stdin: true }));
    await stream.said('start');
    for (let i = 0; i < 4; i++) await stream.send({ type: 'stdin', data: 'x'.repeat(200_000) });
    await stream.send({ type: 'stop' });
    assert.equal((await stream.said('exit')).exit_code, 143);
  });

  it('resizes a terminal, and refuses what a command has not', async () => {
    const stream = await open().send(
      shell('cat', { pty: { cols: 80, rows: 24 } }),
      { type: 'resize', cols: 132, rows: 50 },
      { type: 'resize', cols: 0, rows: 50 },
    );
    assert.match((await stream.said('error')).data, /cols/);
    await until(() => test.agent.sizes.length > 0);
    assert.deepEqual(test.agent.sizes, [[132, 50]]);
    await stream.send({ type: 'stop' });
    await stream.closed;

    const plain = await open().send(
      shell('sleep 0.5'),
      { type: 'resize', cols: 80, rows: 24 },
      { type: 'stdin', data: 'x' },
      { type: 'stdin', data: '!', encoding: 'base64' },
    );
    await plain.closed;
    const errors = plain.messages.filter((message) => message.type === 'error');
    assert.deepEqual(
      errors.map(({ code }) => code),
      ['invalid_request', 'invalid_request', 'invalid_request'],
    );
    assert.match(errors[0].data, /terminal/);
    assert.match(errors[1].data, /stdin/);
    const wrong = await test.ask('POST', path(), { cmd: 'cat', stdin: 'a', stdin_encoding: 'base64' });
    assert.equal(wrong.status, 400);
    assert.match(wrong.body.error.message, /stdin/);
  });

  it('reports a host that breaks off', async () => {
    test.agent.failNext('execStream', new Error('secret /path'));
    const stream = await open().send(shell('true'));
    assert.deepEqual(await stream.closed, { code: 1011, reason: 'internal' });
    assert.doesNotMatch(JSON.stringify(stream.messages), /secret/);
  });
});
