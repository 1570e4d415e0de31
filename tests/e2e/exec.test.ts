/** Programs and files in a sandbox, by the REST API and the stream. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { type StreamOutput, ThawError } from '@thaw/api';
import type { ExecStream } from '@thaw/sdk';
import { WebSocket } from 'ws';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const MIB = 2 ** 20;
const kindOf = (kind: string) => (error: unknown) => error instanceof ThawError && error.kind === kind;

async function collect(run: ExecStream): Promise<{ stdout: Buffer; stderr: Buffer }> {
  const chunks = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
  for await (const { stream, data } of run) chunks[stream].push(data);
  return { stdout: Buffer.concat(chunks.stdout), stderr: Buffer.concat(chunks.stderr) };
}

describe('in a sandbox', () => {
  let thaw: TestThaw;
  let id: string;
  before(async () => {
    thaw = await startThaw();
    id = (await thaw.sdk.sandboxes.create({ env: { FROM_CREATE: 'yes' } })).id;
  });
  after(() => thaw?.stop());

  const exec = (cmd: string, args: string[] = [], more = {}) =>
    thaw.sdk.sandboxes.exec(id, { cmd, args, ...more });
  const stream = (script: string, more = {}) =>
    thaw.sdk.sandboxes.execStream(id, { cmd: '/bin/sh', args: ['-c', script], ...more });
  const read = async (file: string, options = {}) =>
    buffer(await thaw.sdk.sandboxes.readFile(id, file, options));

  describe('a command', () => {
    it('answers both outputs and its exit code', async () => {
      const result = await exec('sh', ['-c', 'echo out; echo err >&2; exit 7']);
      const { duration_ms, ...rest } = result;
      assert.deepEqual(rest, {
        sandbox_id: id,
        cmd: 'sh',
        stdout: 'out\n',
        stderr: 'err\n',
        exit_code: 7,
        encoding: 'utf-8',
      });
      assert.ok(duration_ms >= 0);
    });

    it('is 127 when there is no such command, 137 when it is killed', async () => {
      assert.equal((await exec('sh', ['-c', 'no-such-command'])).exit_code, 127);
      const missing = await exec('no-such-command');
      assert.equal(missing.exit_code, 127);
      assert.match(missing.stderr, /no-such-command/);
      assert.equal((await exec('sh', ['-c', 'kill -9 $$'])).exit_code, 137);
    });

    it('ends at its timeout, with everything it started', async () => {
      const late = exec('sh', ['-c', 'sleep 987 & sleep 988'], { timeout_sec: 1 });
      await assert.rejects(late, kindOf('timeout'));
      await eventually(async () => {
        assert.equal((await exec('pgrep', ['-f', '^sleep 988'])).exit_code, 1);
      });
    });

    it('has user, folder, environment and input', async () => {
      const script = 'id -un; pwd; echo $FROM_CREATE $OWN; cat';
      const options = { cwd: '/tmp', user: 'user', env: { OWN: 'ä b' }, stdin: 'input' };
      const { stdout } = await exec('sh', ['-c', script], options);
      assert.equal(stdout, 'user\n/tmp\nyes ä b\ninput');
      assert.equal((await exec('sh', ['-c', 'id -un; pwd'])).stdout, 'root\n/root\n');
      await assert.rejects(exec('true', [], { user: 'nobody-here' }), kindOf('invalid_request'));
      await assert.rejects(exec('true', [], { cwd: '/no/such' }), kindOf('invalid_request'));
    });

    it('carries bytes that are no text', async () => {
      const bytes = randomBytes(100_000);
      const input = { stdin: bytes.toString('base64'), stdin_encoding: 'base64' as const };
      const { stdout, encoding } = await exec('cat', [], input);
      assert.equal(encoding, 'base64');
      assert.ok(Buffer.from(stdout, 'base64').equals(bytes));
    });

    it('takes more input than pipes hold while it writes as much', async () => {
      const text = 'x'.repeat(600_000);
      const { stdout } = await exec('cat', [], { stdin: text });
      assert.equal(stdout.length, text.length);
    });

    it('with too much output is refused, and ended', async () => {
      await assert.rejects(exec('head', ['-c', '40000000', '/dev/zero']), kindOf('too_large'));
    });

    it('reaches arguments as they are', async () => {
      const args = ['-c', 'for a in "$@"; do printf "[%s]" "$a"; done', 'sh'];
      const odd = ['a b', '', '$HOME', '"', "'", '\n', 'ünï'];
      assert.equal((await exec('sh', [...args, ...odd])).stdout, odd.map((text) => `[${text}]`).join(''));
    });
  });

  describe('a stream', () => {
    it('gives output as it comes, and the end', async () => {
      const run = stream('echo one; sleep 0.3; echo two >&2; exit 5');
      assert.ok((await run.pid) > 1);
      const { stdout, stderr } = await collect(run);
      assert.deepEqual([stdout.toString(), stderr.toString()], ['one\n', 'two\n']);
      assert.equal((await run.result).exitCode, 5);
    });

    it('keeps every byte of binary output', async () => {
      const run = stream('head -c 5000000 /dev/urandom | tee /tmp/random; md5sum /tmp/random >&2');
      const { stdout, stderr } = await collect(run);
      assert.equal(stdout.length, 5_000_000);
      assert.equal(createHash('md5').update(stdout).digest('hex'), stderr.toString().split(' ')[0]);
    });

    it('keeps characters whole that were split between two writes', async () => {
      const { messages } = await raw({
        cmd: '/bin/sh',
        args: ['-c', "printf 'a\\303'; sleep 0.3; printf '\\244b'; sleep 0.3; printf 'ü'"],
      });
      const output = messages.flatMap((message) => (message.type === 'stdout' ? [message] : []));
      const joined = output.map(({ data, encoding }) =>
        Buffer.from(data, encoding === 'base64' ? 'base64' : 'utf8'),
      );
      assert.equal(Buffer.concat(joined).toString(), 'aäbü');
      assert.equal(output[0]?.encoding, 'base64');
      assert.equal(output.at(-1)?.encoding, 'utf-8');
      assert.deepEqual(messages.at(-1), { type: 'exit', exit_code: 0 });
    });

    it('carries input both as text and as bytes until it is closed', async () => {
      const bytes = randomBytes(3 * MIB);
      const run = thaw.sdk.sandboxes.execStream(id, { cmd: 'cat', stdin: true });
      const collected = collect(run);
      await run.write(bytes);
      await run.write(Buffer.from('ende'));
      await run.closeStdin();
      const { stdout } = await collected;
      assert.ok(stdout.equals(Buffer.concat([bytes, Buffer.from('ende')])));
      assert.equal((await run.result).exitCode, 0);
    });

    it('has empty input unless asked for', async () => {
      const run = thaw.sdk.sandboxes.execStream(id, { cmd: 'cat' });
      assert.equal((await run.wait()).exitCode, 0);
    });

    it('stops a process that listens, and one that does not', async () => {
      const polite = stream('trap "echo bye; exit 3" TERM; echo ready; while :; do sleep 0.1; done');
      await firstOutput(polite);
      await polite.stop();
      assert.equal((await polite.result).exitCode, 3);
      const deaf = stream('trap "" TERM; echo ready; while :; do sleep 0.1; done');
      await firstOutput(deaf);
      await deaf.stop();
      assert.equal((await deaf.result).exitCode, 137);
    });

    it('stops the process when the client hangs up', async () => {
      const run = thaw.sdk.sandboxes.execStream(id, { cmd: 'sleep', args: ['4321'] });
      await run.pid;
      run.close();
      await assert.rejects(run.result);
      await eventually(async () => {
        assert.equal((await exec('pgrep', ['-f', '^sleep 4321'])).exit_code, 1);
      });
    });

    it('ends at its timeout', async () => {
      const run = stream('sleep 1000', { timeout_sec: 1 });
      await assert.rejects(run.result, kindOf('timeout'));
    });
  });

  describe('a file', () => {
    for (const size of [0, 1, 4096, 5 * MIB + 1, 64 * MIB]) {
      it(`of ${size} bytes comes back as it was`, async () => {
        const bytes = randomBytes(size);
        await thaw.sdk.sandboxes.writeFile(id, '/root/sub/folder/file', bytes);
        const sum = createHash('md5').update(bytes).digest('hex');
        assert.match(await thaw.sh(id, 'md5sum /root/sub/folder/file'), new RegExp(`^${sum} `));
        assert.ok((await read('/root/sub/folder/file')).equals(bytes));
        await thaw.sh(id, 'rm /root/sub/folder/file');
      });
    }

    it('is written and read by the buffered routes too', async () => {
      const bytes = randomBytes(200_000);
      const form = new FormData();
      form.set('path', '/tmp/buffered');
      form.set('file', new Blob([bytes]), 'file');
      const headers = { 'X-API-Key': thaw.key };
      const at = `${thaw.url}/v1/sandboxes/${id}/files`;
      assert.equal((await fetch(`${at}/write`, { method: 'POST', headers, body: form })).status, 204);
      const answer = await fetch(`${at}/read`, {
        method: 'POST',
        headers: { ...headers, 'Content-Type': 'application/json' },
        body: JSON.stringify({ path: '/tmp/buffered' }),
      });
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(bytes));
    });

    it("belongs to the user, and a relative path to the user's home", async () => {
      await thaw.sdk.sandboxes.writeFile(id, 'mine', 'text', { user: 'user' });
      assert.equal(await thaw.sh(id, 'stat -c %U /home/user/mine'), 'user\n');
      assert.equal((await read('mine', { user: 'user' })).toString(), 'text');
    });

    it('that is missing is 404, a folder is refused', async () => {
      const missing = await thaw.api('POST', `/v1/sandboxes/${id}/files/read`, { path: '/no/such' });
      assert.deepEqual([missing.status, missing.body.error.code], [404, 'not_found']);
      await assert.rejects(read('/no/such'), kindOf('not_found'));
      await assert.rejects(read('/root'), kindOf('invalid_request'));
      await assert.rejects(
        thaw.sdk.sandboxes.writeFile(id, '/etc', 'no'),
        (error) => error instanceof ThawError,
      );
    });

    it('whose upload breaks off is an error, and so is what is left of it no hindrance', async () => {
      const broken = (async function* () {
        yield randomBytes(100_000);
        throw new Error('no more');
      })();
      await assert.rejects(thaw.sdk.sandboxes.writeFile(id, '/tmp/broken', broken));
      await thaw.sdk.sandboxes.writeFile(id, '/tmp/broken', 'whole');
      assert.equal((await read('/tmp/broken')).toString(), 'whole');
    });
  });

  /** Reads on, and resolves when the first output is here. */
  async function firstOutput(run: ExecStream): Promise<void> {
    const first = Promise.withResolvers<void>();
    const reading = async () => {
      for await (const _ of run) first.resolve();
    };
    reading().then(first.resolve, first.reject);
    await first.promise;
  }

  /** What the server sends, message by message. */
  async function raw(command: object): Promise<{ messages: StreamOutput[] }> {
    const url = `${thaw.url.replace('http', 'ws')}/v1/sandboxes/${id}/exec/stream`;
    const socket = new WebSocket(url);
    const messages: StreamOutput[] = [];
    socket.on('open', () => {
      socket.send(JSON.stringify({ type: 'auth', key: thaw.key }));
      socket.send(JSON.stringify({ type: 'start', ...command }));
    });
    socket.on('message', (data) => messages.push(JSON.parse(data.toString())));
    const [code, reason] = await new Promise<[number, Buffer]>((resolve, reject) => {
      socket.on('close', (...closed) => resolve(closed));
      socket.on('error', reject);
    });
    assert.deepEqual([code, reason.toString()], [1000, 'exit']);
    return { messages };
  }
});
