import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  copyFile,
  link,
  mkdir,
  mkdtemp,
  open,
  readFile,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { extractArchive, verifyArchive, writeArchive } from './archive.ts';

const never = new AbortController().signal;

async function folderOf(t: TestContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'thaw-archive-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await mkdir(path.join(folder, 'from/builds'), { recursive: true });
  await mkdir(path.join(folder, 'into'));
  return folder;
}

test('what is archived comes back: bytes, holes, links and rights', async (t) => {
  const folder = await folderOf(t);
  const sparse = path.join(folder, 'from/builds/rootfs');
  const block = randomBytes(4096);
  {
    await using file = await open(sparse, 'wx', 0o600);
    await file.truncate(2 ** 31);
    for (const at of [0, 4096 * 3, 2 ** 30]) await file.write(block, 0, block.length, at);
  }
  await writeFile(path.join(folder, 'from/small'), 'hello', { mode: 0o640 });
  await link(path.join(folder, 'from/small'), path.join(folder, 'from/twin'));
  const archive = path.join(folder, 'archive');
  const head = await writeArchive(archive, path.join(folder, 'from'), never);
  assert.equal((await stat(archive)).mode & 0o777, 0o600);
  assert.ok((await stat(archive)).size < 2 ** 20);
  assert.deepEqual(await verifyArchive(archive, never), head);
  await extractArchive(archive, path.join(folder, 'into'), never);
  const copy = path.join(folder, 'into/builds/rootfs');
  const found = await stat(copy);
  assert.equal(found.size, 2 ** 31);
  assert.equal(found.blocks, (await stat(sparse)).blocks);
  await using file = await open(copy);
  for (const at of [0, 4096 * 3, 2 ** 30]) {
    const { buffer } = await file.read(Buffer.alloc(4096), 0, 4096, at);
    assert.ok(buffer.equals(block), `at ${at}`);
  }
  assert.equal(await readFile(path.join(folder, 'into/twin'), 'utf8'), 'hello');
  assert.equal((await stat(path.join(folder, 'into/small'))).mode & 0o777, 0o640);
  await assert.rejects(writeArchive(archive, path.join(folder, 'from'), never), { code: 'EEXIST' });
});

test('an archive that was changed, cut or is none of ours is refused', async (t) => {
  const folder = await folderOf(t);
  await writeFile(path.join(folder, 'from/file'), randomBytes(100_000));
  const archive = path.join(folder, 'archive');
  await writeArchive(archive, path.join(folder, 'from'), never);
  const { size } = await stat(archive);
  const copy = path.join(folder, 'copy');
  const harmed: [RegExp, () => Promise<unknown>][] = [
    [/bytes instead of/, () => truncate(copy, size - 1)],
    [/no backup of Thaw/, () => truncate(copy, 1000)],
    [/no backup of Thaw/, () => writeFile(copy, '')],
    [/no backup of Thaw/, () => writeFile(copy, randomBytes(10_000))],
    [/checksum/, () => flip(copy, size >> 1)],
    [/damaged|checksum/, () => flip(copy, 530)],
  ];
  for (const [message, harm] of harmed) {
    await copyFile(archive, copy);
    await harm();
    await assert.rejects(verifyArchive(copy, never), { kind: 'invalid_request', message });
  }
});

test('Ctrl-C ends it', async (t) => {
  const folder = await folderOf(t);
  await writeFile(path.join(folder, 'from/file'), randomBytes(1_000_000));
  const reason = new Error('interrupted');
  const aborted = AbortSignal.abort(reason);
  await assert.rejects(
    writeArchive(path.join(folder, 'archive'), path.join(folder, 'from'), aborted),
    reason,
  );
});

async function flip(file: string, at: number): Promise<void> {
  await using handle = await open(file, 'r+');
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, at);
  byte[0]! ^= 1;
  await handle.write(byte, 0, 1, at);
}
