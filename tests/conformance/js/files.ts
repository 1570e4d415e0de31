import assert from 'node:assert/strict';
import type { FilesystemEvent } from 'e2b';
import { type Cases, eventually, fails, sh } from './stage.ts';

export const files: Cases = {
  'files/write-read': async ({ folder }) => {
    const { sandbox, path } = await folder('write-read');
    const written = await sandbox.files.write(`${path}/a b+ü.txt`, 'hello\n');
    assert.deepEqual([written.name, written.path], ['a b+ü.txt', `${path}/a b+ü.txt`]);
    assert.equal(await sandbox.files.read(`${path}/a b+ü.txt`), 'hello\n');
    await sandbox.files.write(`${path}/a b+ü.txt`, 'less');
    assert.equal(await sandbox.files.read(`${path}/a b+ü.txt`), 'less', 'what was longer is cut');
    const bytes = Uint8Array.from({ length: 70_000 }, (_, at) => (at * 7) % 256);
    await sandbox.files.write(`${path}/deep/er/bytes`, bytes.buffer);
    assert.deepEqual(await sandbox.files.read(`${path}/deep/er/bytes`, { format: 'bytes' }), bytes);
    // Relative to the user's home; folders on the way are the user's, even below the root.
    await sandbox.files.write('write-read/relative', 'here');
    assert.equal(await sandbox.files.read('write-read/relative'), 'here');
    await sandbox.files.write('/of-the-user/file', 'x');
    assert.equal(await sh(sandbox, 'stat -c "%U %a" /of-the-user /of-the-user/file'), 'user 755\nuser 644');
    await sandbox.files.write('of-root', 'x', { user: 'root' });
    assert.equal(await sh(sandbox, 'sudo stat -c %U /root/of-root'), 'root');
    assert.equal(await sandbox.files.read('of-root', { user: 'root' }), 'x');
    const many = await sandbox.files.write([
      { path: `${path}/one`, data: '1' },
      { path: `${path}/sub/two`, data: '2' },
    ]);
    assert.deepEqual(
      many.map((file) => file.path),
      [`${path}/one`, `${path}/sub/two`],
    );
    assert.equal(await sandbox.files.read(`${path}/sub/two`), '2');
    await fails(sandbox.files.read(`${path}/absent`), 'FileNotFoundError', 'NotFoundError');
  },

  'files/tree': async ({ folder }) => {
    const { sandbox, path } = await folder('tree');
    assert.equal(await sandbox.files.makeDir(`${path}/x/y`), true);
    assert.equal(await sandbox.files.makeDir(`${path}/x/y`), false);
    await sandbox.files.write(`${path}/x/file`, '12345');
    await sandbox.files.write(`${path}/.hidden`, '');
    const list = (await sandbox.files.list(path)).map(({ name, type }) => [name, type]);
    assert.deepEqual(list, [
      ['.hidden', 'file'],
      ['x', 'dir'],
    ]);
    const deep = await sandbox.files.list(path, { depth: 3 });
    assert.deepEqual(
      deep.map((entry) => entry.path),
      ['.hidden', 'x', 'x/file', 'x/y'].map((name) => `${path}/${name}`),
    );
    const info = await sandbox.files.getInfo(`${path}/x/file`);
    assert.deepEqual(
      [info.name, info.type, info.size, info.mode, info.permissions, info.owner, info.group],
      ['file', 'file', 5, 0o644, '-rw-r--r--', 'user', 'user'],
    );
    assert.ok(Math.abs(info.modifiedTime!.getTime() - Date.now()) < 60_000);
    const moved = await sandbox.files.rename(`${path}/x/file`, `${path}/new/place`);
    assert.equal(moved.path, `${path}/new/place`);
    assert.equal(await sandbox.files.exists(`${path}/x/file`), false);
    assert.equal(await sandbox.files.exists(`${path}/new/place`), true);
    await sandbox.files.remove(`${path}/x`);
    assert.equal(await sandbox.files.exists(`${path}/x/y`), false);
    await sandbox.files.remove(`${path}/x`);
    await fails(sandbox.files.getInfo(`${path}/x`), 'FileNotFoundError', 'NotFoundError');
    await fails(sandbox.files.list(`${path}/x`), 'FileNotFoundError', 'NotFoundError');
    await fails(sandbox.files.rename(`${path}/x`, `${path}/z`), 'FileNotFoundError', 'NotFoundError');
  },

  'files/watch': async ({ folder }) => {
    const { sandbox, path } = await folder('watch');
    const events: FilesystemEvent[] = [];
    const handle = await sandbox.files.watchDir(path, (event) => void events.push(event));
    await sandbox.files.write(`${path}/new.txt`, 'small');
    await eventually(() =>
      assert.deepEqual(
        events.map(({ name, type }) => [name, type]),
        [
          ['new.txt', 'create'],
          ['new.txt', 'chmod'],
          ['new.txt', 'write'],
        ],
      ),
    );
    events.length = 0;
    await sandbox.files.rename(`${path}/new.txt`, `${path}/other.txt`);
    await eventually(() =>
      assert.deepEqual(
        new Set(events.map(({ name, type }) => `${type} ${name}`)),
        new Set(['rename new.txt', 'create other.txt']),
      ),
    );
    events.length = 0;
    await sandbox.files.remove(`${path}/other.txt`);
    await eventually(() =>
      assert.ok(events.some(({ name, type }) => name === 'other.txt' && type === 'remove')),
    );
    await handle.stop();
    events.length = 0;
    await sandbox.files.write(`${path}/unseen`, '');
    await sandbox.files.read(`${path}/unseen`);
    assert.deepEqual(events, []);
    const absent = sandbox.files.watchDir(`${path}/absent`, () => {});
    await fails(absent, 'FileNotFoundError', 'NotFoundError', 'SandboxError');
  },

  'files/watch-more': async ({ folder }) => {
    const { sandbox, path } = await folder('watch-more');
    await sandbox.files.makeDir(`${path}/old`);
    const events: FilesystemEvent[] = [];
    const handle = await sandbox.files.watchDir(path, (event) => void events.push(event), {
      recursive: true,
      includeEntry: true,
    });
    await sandbox.files.write(`${path}/old/a`, 'abc');
    await sandbox.files.write(`${path}/fresh/deep/b`, 'abcd');
    await eventually(() => {
      const seen = (name: string) => events.find((event) => event.name === name && event.type === 'write');
      assert.equal(seen('old/a')?.entry?.size, 3);
      assert.ok(events.some(({ name, type }) => name === 'fresh' && type === 'create'));
      assert.ok(events.some(({ name }) => name === 'fresh/deep/b'));
    });
    await handle.stop();
    // A file is no folder to watch.
    const file = sandbox.files.watchDir(`${path}/old/a`, () => {});
    await fails(file, 'InvalidArgumentError');
    // Its end is told.
    const ended = Promise.withResolvers<Error | undefined>();
    await sandbox.files.watchDir(path, () => {}, {
      timeoutMs: 1000,
      onExit: (error) => ended.resolve(error),
    });
    assert.equal((await ended.promise)?.name, 'TimeoutError');
  },

  'files/signed-url': async ({ folder }) => {
    const { sandbox, path } = await folder('signed');
    const up = await sandbox.uploadUrl(`${path}/sent.txt`);
    const form = new FormData();
    form.append('file', new Blob(['by form']), 'ignored.txt');
    assert.equal((await fetch(up, { method: 'POST', body: form })).status, 200);
    assert.equal(await sandbox.files.read(`${path}/sent.txt`), 'by form');
    const down = await sandbox.downloadUrl(`${path}/sent.txt`);
    const answer = await fetch(down);
    assert.equal(answer.status, 200);
    assert.equal(await answer.text(), 'by form');
    // Another path, or another signature, is another matter.
    const other = new URL(down);
    other.searchParams.set('path', '/etc/passwd');
    assert.ok([401, 400, 502].includes((await fetch(other)).status));
    const asRoot = await sandbox.downloadUrl('/etc/shadow', { user: 'root' });
    assert.match(await (await fetch(asRoot)).text(), /^root:/);
  },

  'files/signed-expiry': async ({ folder }) => {
    const { sandbox, path } = await folder('expiry');
    await sandbox.files.write(`${path}/file`, 'x');
    const good = await sandbox.downloadUrl(`${path}/file`, { useSignatureExpiration: 60 });
    assert.equal(await (await fetch(good)).text(), 'x');
    const late = await sandbox.downloadUrl(`${path}/file`, { useSignatureExpiration: -5 });
    const answer = await fetch(late);
    assert.equal(answer.status, 401);
    assert.match(((await answer.json()) as { message: string }).message, /expired/);
    // Written by the guest, unsigned: nothing.
    const bare = new URL(good);
    bare.searchParams.delete('signature');
    assert.ok((await fetch(bare)).status >= 400);
  },
};
