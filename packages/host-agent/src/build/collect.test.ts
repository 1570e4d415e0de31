import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { Steps } from '../os/step.ts';
import { acquireHead, holdBuild } from './acquire.ts';
import { beginBuild } from './begin.ts';
import { COLLECT_AGE_MS, collectBuilds } from './collect.ts';
import { pauseInto, SANDBOX, testStore } from './fixture.ts';
import { commitHead, listHeads, removeHead, sweepHeadless } from './head.ts';
import { readBuild } from './read.ts';
import { releaseBuild } from './release.ts';
import { openBuildStore } from './store.ts';

const steps = new Steps();
const LATER = { nowMs: Date.now() + 2 * COLLECT_AGE_MS };
const TEMPLATE = { kind: 'template', id: 'tpl' } as const;

test('destroy removes what only that sandbox used', async (t) => {
  const store = await testStore(t);
  const first = await pauseInto(store, { memory: 'DD', disk: 'DD' });
  const second = await pauseInto(store, { memory: 'D.', disk: 'D.' }, first);
  const other = { kind: 'sandbox', id: 'sb2' } as const;
  await commitHead(store, steps, 'fork', other, { build: first.build.id, facts: {} });

  await removeHead(store, steps, 'destroy', SANDBOX);
  assert.deepEqual((await releaseBuild(store, steps, 'destroy', second.build.id)).removed, [second.build.id]);
  await readBuild(store, first.build.id);

  await removeHead(store, steps, 'destroy', other);
  assert.deepEqual((await releaseBuild(store, steps, 'destroy', first.build.id)).removed, [first.build.id]);
  assert.deepEqual(await readdir(store.paths.builds), []);
});

test('a sandbox that pages from an overwritten template keeps its build until it lets go', async (t) => {
  const store = await testStore(t);
  const old = await pauseInto(store, { memory: 'DD', disk: 'DD' }, undefined, { owner: TEMPLATE });
  const { hold, build } = await acquireHead(store, TEMPLATE);
  const fresh = await pauseInto(store, { memory: 'DD', disk: 'DD' }, undefined, { owner: TEMPLATE });

  assert.deepEqual((await releaseBuild(store, steps, 'snapshot', old.build.id)).removed, []);
  assert.deepEqual(await collectBuilds(store, steps, LATER), []);
  await readBuild(store, build.id);

  hold[Symbol.dispose]();
  hold[Symbol.dispose]();
  assert.deepEqual((await releaseBuild(store, steps, 'pause', old.build.id)).removed, [old.build.id]);
  assert.deepEqual(await readdir(store.paths.builds), [fresh.build.id]);
});

test('collection leaves what is young, held, referenced or not ours', async (t) => {
  const store = await testStore(t);
  const kept = await pauseInto(store, { memory: 'D', disk: 'D' });
  const child = await pauseInto(store, { memory: '.', disk: '.' }, kept);
  const loose = await pauseInto(store, { memory: 'D', disk: 'D' }, undefined, { owner: TEMPLATE });
  await removeHead(store, steps, 'snapshot', TEMPLATE);
  assert.deepEqual(await listHeads(store, 'template'), []);
  await mkdir(path.join(store.paths.builds, 'lost+found'));
  const abandoned = '0b0e0f52-6d43-4d7f-a9a4-1c9a63d9a111';
  await mkdir(store.paths.temporary(abandoned).dir);
  await using open = await beginBuild(store, steps, 'pause');

  assert.deepEqual(await collectBuilds(store, steps), []);
  const hold = holdBuild(store, loose.build);
  assert.deepEqual(await collectBuilds(store, steps, LATER), [abandoned]);
  hold[Symbol.dispose]();
  assert.deepEqual(await collectBuilds(store, steps, LATER), [loose.build.id]);
  const left = await readdir(store.paths.builds);
  assert.deepEqual(left.sort(), [`.tmp-${open.id}`, 'lost+found', kept.build.id, child.build.id].sort());
});

test('what a failing step leaves goes with the next release', async (t) => {
  const store = await testStore(t);
  for (const label of ['destroy:unname-builds', 'destroy:remove-builds']) {
    const first = await pauseInto(store, { memory: 'DD', disk: 'D' });
    const child = await pauseInto(store, { memory: '.D', disk: 'D' }, first);
    await removeHead(store, steps, 'destroy', SANDBOX);
    const failing = new Steps((at) => {
      if (at === label) throw new Error('a test made it fail');
    });
    await assert.rejects(releaseBuild(store, failing, 'destroy', child.build.id), /made it fail/);
    assert.notDeepEqual(await readdir(store.paths.builds), []);

    const other = await pauseInto(store, { memory: 'D', disk: 'D' }, undefined, { owner: TEMPLATE });
    await removeHead(store, steps, 'delete', TEMPLATE);
    const { removed } = await releaseBuild(store, steps, 'delete', other.build.id);
    assert.ok(removed.includes(child.build.id) && removed.includes(other.build.id), label);
    assert.deepEqual(await readdir(store.paths.builds), [], label);
  }
});

test('a verb that fails between its head and its builds leaves them to the next release', async (t) => {
  const store = await testStore(t);
  const { build } = await pauseInto(store, { memory: 'D', disk: 'D' });
  await removeHead(store, steps, 'destroy', SANDBOX);
  const other = await pauseInto(store, { memory: 'D', disk: 'D' }, undefined, { owner: TEMPLATE });
  await removeHead(store, steps, 'delete', TEMPLATE);
  const { removed } = await releaseBuild(store, steps, 'delete', other.build.id);
  assert.deepEqual(removed.sort(), [build.id, other.build.id].sort());
});

test('a released build that can not be read keeps nothing else', async (t) => {
  const store = await testStore(t);
  const lost = await pauseInto(store, { memory: 'D', disk: 'D' });
  const other = await pauseInto(store, { memory: 'D', disk: 'D' }, undefined, { owner: TEMPLATE });
  await removeHead(store, steps, 'destroy', SANDBOX);
  const header = lost.build.files.memfileHeader;
  const bytes = await readFile(header);
  await writeFile(header, 'no header');
  store.sources.clear();
  const first = await releaseBuild(store, steps, 'destroy', lost.build.id);
  assert.ok(first.refused !== undefined && first.removed.length === 0);
  await removeHead(store, steps, 'delete', TEMPLATE);
  assert.deepEqual((await releaseBuild(store, steps, 'delete', other.build.id)).removed, [other.build.id]);
  await writeFile(header, bytes);
  const next = await pauseInto(store, { memory: 'D', disk: 'D' });
  await removeHead(store, steps, 'destroy', SANDBOX);
  await releaseBuild(store, steps, 'destroy', next.build.id);
  assert.deepEqual(await readdir(store.paths.builds), []);
});

test('nothing is removed while a head can not be read', async (t) => {
  const store = await testStore(t);
  const { build } = await pauseInto(store, { memory: 'D', disk: 'D' });
  await commitHead(store, steps, 'snapshot', TEMPLATE, { build: build.id, facts: { vcpus: 2 } });
  await writeFile(store.paths.head(SANDBOX), 'not a head');
  const loose = await pauseInto(store, { memory: 'D', disk: 'D' }, undefined, {
    owner: { kind: 'sandbox', id: 'sb3' },
  });
  await removeHead(store, steps, 'destroy', { kind: 'sandbox', id: 'sb3' });

  const { removed, refused } = await releaseBuild(store, steps, 'destroy', loose.build.id);
  assert.deepEqual(removed, []);
  assert.match(String(refused), /head of sandbox sb1 is damaged/);
  await assert.rejects(collectBuilds(store, steps, LATER), /damaged/);
  await readBuild(store, loose.build.id);
  assert.ok((await listHeads(store, 'sandbox')).some(({ head }) => head instanceof Error));
});

test('a new process knows from the disk alone what is in use', async (t) => {
  const before = await testStore(t);
  const first = await pauseInto(before, { memory: 'DD', disk: 'D' });
  const second = await pauseInto(before, { memory: '.D', disk: '0' }, first);
  const store = await openBuildStore(before.paths.data);
  assert.deepEqual(await collectBuilds(store, steps, LATER), []);
  const { build, head } = await acquireHead(store, SANDBOX);
  assert.deepEqual(build, second.build);
  assert.equal(head.build, second.build.id);
});

test('a template whose head was never committed leaves no folder', async (t) => {
  const store = await testStore(t);
  const { build } = await pauseInto(store, { memory: 'DD', disk: 'DD' }, undefined, { owner: TEMPLATE });
  const cut = store.paths.owner({ kind: 'template', id: 'tplcut' });
  await mkdir(cut);
  await writeFile(`${path.join(cut, 'head.json')}.new`, '{"form');
  assert.deepEqual(await sweepHeadless(store), ['tplcut']);
  assert.deepEqual(await readdir(store.paths.owners('template')), [TEMPLATE.id]);
  await readBuild(store, build.id);
});
