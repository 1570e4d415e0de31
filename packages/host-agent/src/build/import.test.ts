import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFile, open, readdir, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { Steps } from '../os/step.ts';
import { acquireHead } from './acquire.ts';
import { assemble, testStore } from './fixture.ts';
import { importImage } from './import.ts';
import { verifyBuild } from './verify.ts';

const steps = new Steps();
const MINIMAL = { kind: 'template', id: 'minimal' } as const;

async function sparseImage(file: string, bytes: number, offsets: number[]): Promise<Buffer> {
  const content = Buffer.alloc(bytes);
  await using image = await open(file, 'wx');
  await image.truncate(bytes);
  for (const offset of offsets) {
    const block = randomBytes(4096);
    block.copy(content, offset);
    await image.write(block, 0, block.length, offset);
  }
  return content;
}

test('an image becomes a disk-only build; its zero blocks are zero fill', async (t) => {
  const store = await testStore(t);
  const image = path.join(store.paths.data, 'image.ext4');
  const offsets = [0, 4096, 1 << 20, (1 << 20) - 4096, 3 << 20];
  const content = await sparseImage(image, 4 << 20, offsets);
  const build = await importImage(store, steps, 'import', {
    image,
    template: 'minimal',
    facts: { name: 'minimal' },
  });
  assert.equal(build.memory, null);
  assert.equal(build.manifest.disk.stored_bytes, offsets.length * 4096);
  assert.equal(build.disk.header.entries.length, 6);
  assert.ok((await assemble((await verifyBuild(store, build.id)).disk)).equals(content));
  assert.equal((await stat(build.files.rootfs)).ino, (await stat(image)).ino);
  const { head, hold } = await acquireHead(store, MINIMAL);
  assert.deepEqual(head.facts, { name: 'minimal' });
  hold[Symbol.dispose]();
});

test('an image on another file system is copied with its holes', async (t) => {
  const store = await testStore(t);
  const image = `/dev/shm/thaw-import-${process.pid}`;
  t.after(() => rm(image, { force: true }));
  const content = await sparseImage(image, 8 << 20, [0, 5 << 20]);
  const build = await importImage(store, steps, 'import', { image, template: 'minimal', facts: {} });
  assert.ok((await assemble(build.disk)).equals(content));
  assert.ok((await stat(build.files.rootfs)).blocks * 512 < 1 << 20);
  await verifyBuild(store, build.id);
});

test('a newer image replaces the older one unless that is in use', async (t) => {
  const store = await testStore(t);
  const image = path.join(store.paths.data, 'image.ext4');
  await sparseImage(image, 1 << 20, [0]);
  const first = await importImage(store, steps, 'import', { image, template: 'minimal', facts: {} });
  const { hold } = await acquireHead(store, MINIMAL);
  const newer = path.join(store.paths.data, 'newer.ext4');
  await copyFile(image, newer);
  const second = await importImage(store, steps, 'import', { image: newer, template: 'minimal', facts: {} });
  assert.deepEqual((await readdir(store.paths.builds)).sort(), [first.id, second.id].sort());
  hold[Symbol.dispose]();
  const third = await importImage(store, steps, 'import', { image: newer, template: 'minimal', facts: {} });
  assert.deepEqual(await readdir(store.paths.builds), [third.id]);
});

test('what is no image is refused', async (t) => {
  const store = await testStore(t);
  const image = path.join(store.paths.data, 'image.ext4');
  await writeFile(image, 'short');
  await assert.rejects(importImage(store, steps, 'import', { image, template: 'minimal', facts: {} }), {
    kind: 'invalid_request',
  });
  assert.deepEqual(await readdir(store.paths.builds), []);
});
