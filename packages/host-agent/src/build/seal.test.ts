import assert from 'node:assert/strict';
import { readdir, stat, truncate } from 'node:fs/promises';
import { type TestContext, test } from 'node:test';
import { Steps } from '../os/step.ts';
import { beginBuild } from './begin.ts';
import type { Build } from './build.ts';
import { assemble, type Content, fillBuild, MACHINE, pauseInto, SANDBOX, testStore } from './fixture.ts';
import { commitHead, readHead } from './head.ts';
import { measureBuild } from './measure.ts';
import { readBuild } from './read.ts';
import { sealBuild } from './seal.ts';
import type { BuildStore } from './store.ts';
import { verifyBuild } from './verify.ts';

async function assertWhole(store: BuildStore, build: Build, content: Content): Promise<void> {
  const read = await verifyBuild(store, build.id);
  assert.deepEqual(read, build);
  assert.ok((await assemble(read.memory!)).equals(content.memory));
  assert.ok((await assemble(read.disk)).equals(content.disk));
}

test('generations read back whole, also with a disk that grew and blocks that became zero', async (t) => {
  const store = await testStore(t);
  const first = await pauseInto(store, { memory: 'DD0.DDDD', disk: 'D..D' });
  await assertWhole(store, first.build, first.content);
  const second = await pauseInto(store, { memory: '.D0.0..D', disk: '0..DD..' }, first);
  const third = await pauseInto(store, { memory: '........', disk: '.D....D' }, second);
  for (const { build, content } of [first, second, third]) await assertWhole(store, build, content);
  assert.equal(third.build.memory!.header.generation, 2);
  assert.equal(third.build.manifest.memory!.parent, second.build.id);
  assert.equal(third.build.manifest.memory!.stored_bytes, 0);
  assert.equal(third.build.manifest.disk.stored_bytes, 2 * 4096);
  assert.equal((await readHead(store, SANDBOX))!.build, third.build.id);
});

test('only a sealed build is left of its files, for root alone, and it takes what it stores', async (t) => {
  const store = await testStore(t);
  const { build } = await pauseInto(store, { memory: 'D'.repeat(600), disk: `${'.'.repeat(5000)}D` });
  assert.deepEqual((await readdir(build.files.dir)).sort(), [
    'manifest.json',
    'memfile',
    'memfile.header',
    'rootfs',
    'rootfs.header',
    'vmstate',
  ]);
  assert.equal((await stat(build.files.dir)).mode & 0o777, 0o700);
  assert.equal((await stat(build.files.manifest)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(store.paths.builds), [build.id]);
  const size = await measureBuild(build);
  assert.ok(size.memoryStoredBytes >= 600 * 4096 && size.memoryStoredBytes < 620 * 4096);
  assert.ok(size.diskStoredBytes >= 4096 && size.diskStoredBytes < 16 * 4096);
  assert.ok(size.storedBytes > size.memoryStoredBytes + size.diskStoredBytes);
  assert.equal(build.manifest.memory!.chunks.length, 3);
  assert.equal(build.manifest.disk.chunks.length, 1);
});

/** The labels of a whole pause, in the order in which they first come. */
async function labelsOfPause(t: TestContext): Promise<string[]> {
  const store = await testStore(t);
  const steps = new Steps();
  await pauseInto(store, { memory: 'D', disk: 'D' }, undefined, { steps });
  return [...steps.timings().keys()];
}

test('a failure at any step leaves the old head with its whole build, and nothing else', async (t) => {
  const labels = await labelsOfPause(t);
  assert.deepEqual(labels.toSorted(), [
    'pause:begin-build',
    'pause:checksum',
    'pause:commit-head',
    'pause:fsync-build',
    'pause:fsync-builds',
    'pause:fsync-files',
    'pause:fsync-head',
    'pause:link-disk',
    'pause:rename-build',
    'pause:write-head',
    'pause:write-headers',
    'pause:write-manifest',
  ]);
  for (const label of labels) {
    const store = await testStore(t);
    const first = await pauseInto(store, { memory: 'DDD', disk: 'DD.' });
    const steps = new Steps((at) => {
      if (at === label) throw new Error(`fault at ${at}`);
    });
    const failing = pauseInto(store, { memory: 'D0.', disk: '..D' }, first, { steps });
    await assert.rejects(failing, /fault at/, label);
    const head = (await readHead(store, SANDBOX))!;
    await verifyBuild(store, head.build);
    assert.equal(head.build, first.build.id, label);
    assert.deepEqual(await readdir(store.paths.builds), [first.build.id], label);
    await assertWhole(store, first.build, first.content);
    // What the failed pause would have stored comes with the next one.
    const again = await pauseInto(store, { memory: 'D0.', disk: '..D' }, first);
    await assertWhole(store, again.build, again.content);
  }
});

test('whoever looks between two steps finds a whole build', async (t) => {
  const store = await testStore(t);
  const first = await pauseInto(store, { memory: 'DD', disk: 'D.' });
  const seen = new Set<string>();
  const steps = new Steps(async () => {
    const { build } = (await readHead(store, SANDBOX))!;
    await readBuild(store, build);
    for (const name of await readdir(store.paths.builds))
      if (!name.startsWith('.')) await readBuild(store, name);
    seen.add(build);
  });
  const second = await pauseInto(store, { memory: '.D', disk: '.D' }, first, { steps });
  assert.deepEqual([...seen], [first.build.id, second.build.id]);
});

test('a build that no head was pointed at goes with its scope', async (t) => {
  const store = await testStore(t);
  {
    await using open = await beginBuild(store, new Steps(), 'pause');
    const { content, layer } = await fillBuild(store, open, { memory: 'D', disk: 'D' }, undefined);
    const build = await sealBuild(store, new Steps(), 'pause', open, {
      memory: { sizeBytes: content.memory.length, parent: null, machine: MACHINE, layout: 'packed' },
      disk: { sizeBytes: content.disk.length, parent: null, layer },
      template: null,
    });
    await readBuild(store, build.id);
  }
  assert.deepEqual(await readdir(store.paths.builds), []);
});

test('memory shorter than its runs is never sealed', async (t) => {
  const store = await testStore(t);
  await using open = await beginBuild(store, new Steps(), 'pause');
  const { layer } = await fillBuild(store, open, { memory: 'D', disk: 'D' }, undefined);
  await truncate(open.files.memfile, 100);
  await assert.rejects(
    sealBuild(store, new Steps(), 'pause', open, {
      memory: { sizeBytes: 4096, parent: null, machine: MACHINE, layout: 'packed' },
      disk: { sizeBytes: 4096, parent: null, layer },
      template: null,
    }),
    /shorter than its list of runs/,
  );
});

test('a head names only what is sealed, and ids stay in their folder', async (t) => {
  const store = await testStore(t);
  const { build } = await pauseInto(store, { memory: 'D', disk: 'D' });
  const commit = (id: string, kind: 'sandbox' | 'template', buildId: string) =>
    commitHead(store, new Steps(), 'snapshot', { kind, id }, { build: buildId, facts: {} });
  await assert.rejects(
    commit('x', 'template', 'cd8b7a6e-3a53-4c0c-9a8c-0b1f5a6f4c11'),
    /it is not on this host/,
  );
  assert.equal(await readHead(store, { kind: 'template', id: 'x' }), undefined);
  for (const id of ['..', '', 'a/b', '.', 'A', 'a'.repeat(64)]) {
    await assert.rejects(commit(id, 'template', build.id), /is not the id of a template/);
  }
  await assert.rejects(commit('x', 'template', '../x'), /is not the id of a build/);
});
