import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { ThawError } from '@thaw/api';
import { TestPlane, until } from '../../control-plane/src/testing.ts';
import { type ExecStream, Thaw } from './index.ts';

const kindOf = (kind: string) => (error: unknown) => error instanceof ThawError && error.kind === kind;

async function collect(run: ExecStream): Promise<{ stdout: Buffer; stderr: Buffer }> {
  const chunks = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
  for await (const { stream, data } of run) chunks[stream].push(data);
  return { stdout: Buffer.concat(chunks.stdout), stderr: Buffer.concat(chunks.stderr) };
}

describe('the client', () => {
  let test: TestPlane;
  let thaw: Thaw;
  let id: string;
  before(async () => {
    test = await TestPlane.start();
    thaw = new Thaw({ url: `${test.url}/`, key: test.key });
    id = (await thaw.sandboxes.create({ metadata: { a: 'b&c' } })).id;
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  it('drives a sandbox and its snapshots', async () => {
    await thaw.ready();
    assert.equal((await thaw.sandboxes.stats(id)).resident_bytes, 4096);
    assert.equal((await thaw.sandboxes.pause(id)).status, 'paused');
    assert.equal((await thaw.sandboxes.resume(id)).status, 'running');
    assert.equal((await thaw.sandboxes.exec(id, { cmd: 'echo', args: ['x'] })).stdout, 'x\n');
    const listed = await Array.fromAsync(
      thaw.sandboxes.list({ status: ['running'], metadata: { a: 'b&c' } }),
    );
    assert.deepEqual(
      listed.map((sandbox) => sandbox.id),
      [id],
    );
    const snapshot = await thaw.snapshots.create(id, { name: 'app' });
    assert.equal((await thaw.snapshots.create(id, { name: 'app', overwrite: true })).id, snapshot.id);
    const spawn = await thaw.sandboxes.create({ template: 'app' });
    const changed = await thaw.sandboxes.update(spawn.id, { timeout_sec: 0, network: { internet: false } });
    assert.deepEqual([changed.timeout_sec, changed.network.internet], [0, false]);
    await thaw.sandboxes.pause(spawn.id);
    assert.equal((await thaw.sandboxes.resume(spawn.id, { memory: false })).status, 'running');
    await thaw.snapshots.delete('app');
    assert.deepEqual(await Array.fromAsync(thaw.snapshots.list('snapshot')), []);
    await thaw.sandboxes.delete(spawn.id);
    assert.equal((await thaw.sandboxes.get(spawn.id)).status, 'stopped');
  });

  it('follows pages', async () => {
    const { db } = test.running.plane;
    const row = await db.selectFrom('sandboxes').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
    for (let i = 0; i < 250; i++) {
      const copy = {
        ...row,
        id: `sbx${i}`,
        metadata: '{"many":"yes"}',
        network: undefined,
        ingress: undefined,
        build_id: null,
        created_at: undefined,
      };
      await db.insertInto('sandboxes').values(copy).execute();
    }
    const all = await Array.fromAsync(thaw.sandboxes.list({ metadata: { many: 'yes' } }));
    assert.equal(new Set(all.map((sandbox) => sandbox.id)).size, 250);
  });

  it('throws what went wrong', async () => {
    await assert.rejects(thaw.sandboxes.get('sbaaaaaaaaaaaaaaaaaaaa'), kindOf('not_found'));
    await assert.rejects(thaw.sandboxes.resume(id), kindOf('invalid_state'));
    await assert.rejects(thaw.sandboxes.create({ vcpus: 99 }), kindOf('invalid_request'));
    await assert.rejects(new Thaw({ url: test.url, key: 'no' }).sandboxes.get(id), kindOf('unauthenticated'));
    await assert.rejects(new Thaw({ url: 'http://127.0.0.1:1', key: 'no' }).ready(), kindOf('unavailable'));
  });

  it('streams commands', async () => {
    const run = thaw.sandboxes.execStream(id, { cmd: 'sh', args: ['-c', 'echo out; echo err >&2; exit 4'] });
    const { stdout, stderr } = await collect(run);
    assert.equal(stdout.toString(), 'out\n');
    assert.equal(stderr.toString(), 'err\n');
    assert.deepEqual(await run.result, { exitCode: 4 });
    assert.ok((await run.pid) > 0);

    const unread = thaw.sandboxes.execStream(id, {
      cmd: 'sh',
      args: ['-c', 'head -c 20000000 /dev/zero; exit 5'],
    });
    assert.equal((await unread.wait()).exitCode, 5);
  });

  it('carries bytes through standard input and back', async () => {
    const bytes = randomBytes(2_000_000);
    const run = thaw.sandboxes.execStream(id, { cmd: 'cat', stdin: true });
    const read = collect(run);
    await run.write(bytes);
    await run.closeStdin();
    assert.ok((await read).stdout.equals(bytes));
    assert.equal((await run.result).exitCode, 0);
  });

  it('stops commands, and hangs up', async () => {
    const run = thaw.sandboxes.execStream(id, { cmd: 'sleep', args: ['100'] });
    await run.stop();
    assert.equal((await run.result).exitCode, 143);
    const left = thaw.sandboxes.execStream(id, { cmd: 'sleep', args: ['100'] });
    await left.pid;
    left.close();
    await assert.rejects(left.result, kindOf('unavailable'));
    await until(() => test.agent.processes.size === 0);
  });

  it('throws what a stream could not do', async () => {
    const unknown = thaw.sandboxes.execStream('sbaaaaaaaaaaaaaaaaaaaa', { cmd: 'true' });
    await assert.rejects(collect(unknown), kindOf('not_found'));
    await assert.rejects(unknown.result, kindOf('not_found'));
    await assert.rejects(thaw.sandboxes.execStream(id, { cmd: '' }).result, kindOf('invalid_request'));
    await assert.rejects(
      new Thaw({ url: 'http://127.0.0.1:1', key: 'x' }).sandboxes.execStream(id, { cmd: 'x' }).result,
    );
  });

  it('moves files', async () => {
    const bytes = randomBytes(3_000_000);
    await thaw.sandboxes.writeFile(id, '/data', bytes);
    assert.ok((await buffer(await thaw.sandboxes.readFile(id, '/data'))).equals(bytes));
    await thaw.sandboxes.writeFile(id, '/text', 'hällo', { user: 'user' });
    assert.equal((await buffer(await thaw.sandboxes.readFile(id, '/text'))).toString(), 'hällo');
    await thaw.sandboxes.writeFile(
      id,
      '/parts',
      (async function* () {
        for (let i = 0; i < 10; i++) yield Buffer.alloc(100_000, i);
      })(),
    );
    assert.equal((await buffer(await thaw.sandboxes.readFile(id, '/parts'))).length, 1_000_000);
    await assert.rejects(thaw.sandboxes.readFile(id, '/nosuch'), kindOf('not_found'));
    const broken = (async function* () {
      yield Buffer.alloc(200_000);
      throw new Error('no more');
    })();
    await assert.rejects(thaw.sandboxes.writeFile(id, '/broken', broken));
    assert.equal(test.agent.files.has(`${id}:/broken`), false);
  });
});
