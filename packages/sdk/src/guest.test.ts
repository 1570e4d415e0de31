import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { ThawError } from '@thaw/api';
import { WebSocketServer } from 'ws';
import { TestPlane, until } from '../../control-plane/src/testing.ts';
import { type Change, Thaw } from './index.ts';

const kindOf = (kind: string) => (error: unknown) => error instanceof ThawError && error.kind === kind;

describe('the client in a guest', () => {
  let test: TestPlane;
  let thaw: Thaw;
  let id: string;
  before(async () => {
    test = await TestPlane.start();
    thaw = new Thaw({ url: test.url, key: test.key });
    id = (await thaw.sandboxes.create()).id;
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  it('lists, shows, moves and removes', async () => {
    const { sandboxes } = thaw;
    assert.equal((await sandboxes.makeDir(id, '/tree/sub')).type, 'directory');
    await assert.rejects(sandboxes.makeDir(id, '/tree/sub'), kindOf('already_exists'));
    await sandboxes.writeFile(id, '/tree/a', 'abc');
    assert.equal((await sandboxes.statFile(id, '/tree/a')).size, 3);
    assert.equal((await sandboxes.moveFile(id, '/tree/a', '/tree/sub/b')).path, '/tree/sub/b');
    const found = await sandboxes.listDir(id, '/tree', { depth: 2 });
    assert.deepEqual(
      found.map(({ path }) => path),
      ['/tree/sub', '/tree/sub/b'],
    );
    await sandboxes.removeFile(id, '/tree');
    await assert.rejects(sandboxes.statFile(id, '/tree'), kindOf('not_found'));
    await assert.rejects(sandboxes.listDir(id, '/x', { depth: 0 }), kindOf('invalid_request'));
  });

  it('watches until it is left', async () => {
    await thaw.sandboxes.makeDir(id, '/watched');
    const watch = await thaw.sandboxes.watchDir(id, '/watched');
    const seen: Change[] = [];
    for (const name of ['a', 'b']) await thaw.sandboxes.writeFile(id, `/watched/${name}`, 'x');
    for await (const change of watch) if (seen.push(change) === 2) break;
    assert.deepEqual(seen, [
      { change: 'write', name: 'a' },
      { change: 'write', name: 'b' },
    ]);
    await until(() => test.agent.watches === 0);
    await assert.rejects(thaw.sandboxes.watchDir(id, '/no/such'), kindOf('not_found'));
  });

  it('resizes a terminal, and takes an error on the way for no end', async () => {
    const run = thaw.sandboxes.execStream(id, { cmd: 'cat', pty: { cols: 80, rows: 24 } });
    await run.pid;
    await run.resize({ cols: 132, rows: 43 });
    await until(() => test.agent.sizes.length === 1);
    await run.stop();
    await run.result;
    const plain = thaw.sandboxes.execStream(id, { cmd: 'sh', args: ['-c', 'sleep 0.3; exit 6'] });
    await plain.resize({ cols: 1, rows: 1 });
    assert.equal((await plain.wait()).exitCode, 6);
  });

  it('runs commands that take longer than an answer may', async () => {
    const { duration_ms, ...result } = await thaw.sandboxes.exec(id, {
      cmd: 'sh',
      args: ['-c', 'cat; echo err >&2; exit 3'],
      timeout_sec: 3600,
      stdin: 'in',
    });
    assert.ok(duration_ms >= 0);
    assert.deepEqual(result, {
      sandbox_id: id,
      cmd: 'sh',
      stdout: 'in',
      stderr: 'err\n',
      exit_code: 3,
      encoding: 'utf-8',
    });
    const bytes = await thaw.sandboxes.exec(id, { cmd: 'printf', args: ['\\377'], timeout_sec: 3600 });
    assert.deepEqual([bytes.stdout, bytes.encoding], ['/w==', 'base64']);
  });

  it('survives a server that makes no sense', async () => {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    await once(server, 'listening');
    server.on('connection', (socket) => socket.send('garbage'));
    const { port } = server.address() as { port: number };
    const wrong = new Thaw({ url: `http://127.0.0.1:${port}`, key: 'x' });
    await assert.rejects(wrong.sandboxes.execStream(id, { cmd: 'x' }).result, kindOf('agent_error'));
    server.close();
  });
});
