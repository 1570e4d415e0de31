/** Folders, watches and large files of a sandbox. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { ThawError } from '@thaw/api';
import type { Change } from '@thaw/sdk';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { holdsBounded } from './memory.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const MIB = 2 ** 20;
/** THAW_FULL=1 moves what the documents promise; the sample shows the same bound. */
const LARGE_MIB = process.env.THAW_FULL ? 1024 : 192;
const GROWTH_MIB = 128;
const kindOf = (kind: string) => (error: unknown) => error instanceof ThawError && error.kind === kind;

describe('the files of a sandbox', () => {
  let thaw: TestThaw;
  let id: string;
  before(async () => {
    thaw = await startThaw();
    id = (await thaw.sdk.sandboxes.create({ disk_mb: 4096 })).id;
  });
  after(() => thaw?.stop());

  it('are listed, shown, moved and removed', async () => {
    const files = thaw.sdk.sandboxes;
    const made = await files.makeDir(id, '/root/tree/sub', { user: 'root' });
    assert.deepEqual([made.type, made.path, made.permissions], ['directory', '/root/tree/sub', 'drwxr-xr-x']);
    await assert.rejects(files.makeDir(id, '/root/tree/sub'), kindOf('already_exists'));
    await files.writeFile(id, '/root/tree/file', 'abc');
    await thaw.sh(id, 'ln -s file /root/tree/link; ln -s nowhere /root/tree/broken; mkfifo /root/tree/pipe');
    const file = await files.statFile(id, '/root/tree/file');
    assert.deepEqual(
      [file.name, file.type, file.size, file.mode, file.permissions, file.owner, file.group],
      ['file', 'file', 3, 0o644, '-rw-r--r--', 'root', 'root'],
    );
    assert.ok(Math.abs(Date.parse(file.modified_at) - Date.now()) < 3_600_000, file.modified_at);
    const link = await files.statFile(id, '/root/tree/link');
    assert.deepEqual([link.type, link.symlink_target], ['file', '/root/tree/file']);

    const paths = async (depth: number) =>
      (await files.listDir(id, '/root/tree', { depth })).map(({ path, type }) => `${path} ${type}`);
    const top = [
      '/root/tree/broken other',
      '/root/tree/file file',
      '/root/tree/link file',
      '/root/tree/pipe other',
      '/root/tree/sub directory',
    ];
    assert.deepEqual(await paths(1), top);
    const moved = await files.moveFile(id, '/root/tree/file', '/root/tree/sub/new/name');
    assert.equal(moved.path, '/root/tree/sub/new/name');
    assert.ok((await paths(3)).includes('/root/tree/sub/new/name file'));
    assert.equal(await thaw.sh(id, 'cat /root/tree/sub/new/name'), 'abc');

    await files.removeFile(id, '/root/tree');
    await files.removeFile(id, '/root/tree');
    await assert.rejects(files.statFile(id, '/root/tree'), kindOf('not_found'));
    await assert.rejects(files.listDir(id, '/root/tree'), kindOf('not_found'));
    await assert.rejects(files.moveFile(id, '/root/tree', '/root/x'), kindOf('not_found'));
    await assert.rejects(files.listDir(id, '/etc/passwd'), kindOf('invalid_request'));
    await assert.rejects(files.statFile(id, '/x', { user: 'nobody-here' }), kindOf('invalid_request'));
  });

  it("are the user's whom one names", async () => {
    const made = await thaw.sdk.sandboxes.makeDir(id, 'own', { user: 'user' });
    assert.deepEqual([made.path, made.owner], ['/home/user/own', 'user']);
    const listed = await thaw.cli(['sandbox', 'ls-files', id, '/home/user', '--json', '--user', 'user']);
    assert.equal(listed.code, 0, listed.stderr);
    const entries = JSON.parse(listed.stdout) as { name: string }[];
    assert.ok(entries.some(({ name }) => name === 'own'));
    assert.match(
      (await thaw.cli(['sandbox', 'ls-files', id, '/home/user'])).stdout,
      /drwxr-xr-x .* \/home\/user\/own/,
    );
  });

  it('are watched while they change', async () => {
    await thaw.sh(id, 'mkdir -p /root/watched/below');
    const changes: Change[] = [];
    const leave = new AbortController();
    const watch = await thaw.sdk.sandboxes.watchDir(id, '/root/watched', {
      recursive: true,
      signal: leave.signal,
    });
    const reading = (async () => {
      for await (const change of watch) changes.push(change);
    })();
    await thaw.sh(id, 'cd /root/watched; echo 1 > a; echo 2 > below/b; chmod 600 a; mv a c; rm below/b');
    const seen = (change: string, name: string) =>
      changes.some((found) => found.change === change && found.name === name);
    await eventually(async () => {
      for (const [change, name] of [
        ['create', 'a'],
        ['write', 'a'],
        ['create', 'below/b'],
        ['chmod', 'a'],
        ['rename', 'a'],
        ['create', 'c'],
        ['remove', 'below/b'],
      ] as const)
        assert.ok(seen(change, name), `${change} ${name} in ${JSON.stringify(changes)}`);
    });
    leave.abort();
    await assert.rejects(reading);
    await assert.rejects(thaw.sdk.sandboxes.watchDir(id, '/no/such'), kindOf('not_found'));
    await assert.rejects(thaw.sdk.sandboxes.watchDir(id, '/etc/passwd'), kindOf('invalid_request'));
  });

  it('end a watch with an error when the sandbox pauses', async () => {
    const other = await thaw.sdk.sandboxes.create();
    const watch = await thaw.sdk.sandboxes.watchDir(other.id, '/root');
    const next = watch.next();
    next.catch(() => {});
    await thaw.sdk.sandboxes.pause(other.id);
    await assert.rejects(next, kindOf('unavailable'));
    await thaw.sdk.sandboxes.delete(other.id);
  });

  it(`of ${LARGE_MIB} MiB travel both ways in bounded memory`, async () => {
    const block = randomBytes(MIB);
    const sum = createHash('md5');
    const content = (async function* () {
      for (let i = 0; i < LARGE_MIB; i++) {
        block.writeUInt32LE(i);
        const piece = Buffer.from(block);
        sum.update(piece);
        yield piece;
      }
    })();
    await holdsBounded(thaw, GROWTH_MIB, () => thaw.sdk.sandboxes.writeFile(id, '/root/large', content));
    const expected = sum.digest('hex');
    assert.match(await thaw.sh(id, 'md5sum /root/large', 600), new RegExp(`^${expected} `));
    const back = createHash('md5');
    await holdsBounded(thaw, GROWTH_MIB, async () => {
      for await (const chunk of await thaw.sdk.sandboxes.readFile(id, '/root/large')) back.update(chunk);
    });
    assert.equal(back.digest('hex'), expected);
    await thaw.sh(id, 'rm /root/large');
  });

  it('break visibly when the sandbox goes away in the middle of a download', async () => {
    const other = await thaw.sdk.sandboxes.create();
    await thaw.sh(other.id, 'head -c 100000000 /dev/zero > /root/zeros');
    const reader = (await thaw.sdk.sandboxes.readFile(other.id, '/root/zeros')).getReader();
    await reader.read();
    await thaw.sdk.sandboxes.delete(other.id);
    await assert.rejects(async () => {
      while (!(await reader.read()).done);
    });
  });
});
