import assert from 'node:assert/strict';
import { mkdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { assemble, pauseInto, SANDBOX, testStore } from '../build/fixture.ts';
import { readHead, removeHead } from '../build/head.ts';
import { readBuild } from '../build/read.ts';
import { releaseBuild } from '../build/release.ts';
import { BuildStore } from '../build/store.ts';
import { verifyBuild } from '../build/verify.ts';
import { Steps } from '../os/step.ts';
import { type SandboxRecord, writeRecord } from '../sandbox/record.ts';
import { stage } from './stage.ts';

const RECORD: SandboxRecord = {
  id: SANDBOX.id,
  template: 'minimal',
  vcpus: 1,
  memoryMb: 128,
  diskMb: 512,
  timeoutSec: 0,
  env: {},
  egress: { internet: true, allowOut: [], denyOut: [], allowDomains: [], dnsServers: [] },
  accessToken: 'token',
  defaultUser: 'root',
  defaultWorkdir: '/root',
  machineId: '0'.repeat(32),
  counter: 1,
  createdAt: 1,
  lastActiveAt: 1,
  started: false,
};

test('a staged build outlives its sandbox, with all that its headers name', async (t) => {
  const store = await testStore(t);
  const { data } = store.paths;
  const steps = new Steps();
  const first = await pauseInto(store, { memory: 'DD0D', disk: 'DDDD' });
  const { build, content } = await pauseInto(store, { memory: 'D.D0', disk: '.D0.' }, first);
  const running = { kind: 'sandbox', id: 'sb2' } as const;
  await pauseInto(store, { memory: 'D', disk: 'D' }, undefined, { owner: running });
  for (const record of [RECORD, { ...RECORD, id: running.id, started: true }])
    await writeRecord({ data, run: data }, record, steps, 'record');
  const into = path.join(data, '.backup-test');
  await mkdir(into);
  const staged = await stage(data, into, new Set([SANDBOX.id, running.id, 'sb9']));
  assert.deepEqual(staged, {
    sandboxes: [
      { id: 'sb1', running: false },
      { id: 'sb2', running: true },
    ],
    templates: [],
    left_out: [],
  });
  const saved = JSON.parse(await readFile(path.join(into, 'sandboxes/sb2/sandbox.json'), 'utf8'));
  assert.equal(saved.started, false);
  assert.match(saved.errorReason, /running when it was backed up/);

  // The sandbox is destroyed: what was staged is still there, and takes no room of its own.
  await removeHead(store, steps, 'destroy', SANDBOX);
  await releaseBuild(store, steps, 'destroy', build.id);
  await assert.rejects(stat(build.files.dir));
  const copy = await readBuild(new BuildStore(into), build.id);
  assert.deepEqual(await assemble(copy.memory!), content.memory);
  assert.deepEqual(await assemble(copy.disk), content.disk);
});

test('what is damaged is left out and named; what was not asked for is not looked at', async (t) => {
  const store = await testStore(t);
  const { data } = store.paths;
  const steps = new Steps();
  const { build } = await pauseInto(store, { memory: 'DD', disk: 'DD' });
  const others = ['sb2', 'sb3'].map((id) => ({ kind: 'sandbox', id }) as const);
  for (const owner of others) await pauseInto(store, { memory: 'D', disk: 'D' }, undefined, { owner });
  for (const id of ['sb1', 'sb2', 'sb3'])
    await writeRecord({ data, run: data }, { ...RECORD, id }, steps, 'record');
  await truncate(build.files.memfile, 1);
  await writeFile(path.join(data, 'sandboxes/sb3/sandbox.json'), 'nonsense');
  const into = path.join(data, '.backup-test');
  await mkdir(into);
  const staged = await stage(data, into, new Set(['sb1', 'sb2', 'sb3']));
  assert.deepEqual(staged.sandboxes, [{ id: 'sb2', running: false }]);
  assert.deepEqual(staged.left_out.map(({ id }) => id).sort(), ['sb1', 'sb3']);
  assert.match(staged.left_out.find(({ id }) => id === 'sb1')!.reason, /damaged/);
  await assert.rejects(stat(path.join(into, 'sandboxes/sb1')));
  await rm(into, { recursive: true });
  await mkdir(into);
  assert.deepEqual((await stage(data, into, new Set())).left_out, []);
});

test('what is sealed, overwritten and removed meanwhile is saved whole in one state or another', async (t) => {
  const store = await testStore(t);
  const { data } = store.paths;
  const steps = new Steps();
  await writeRecord({ data, run: data }, RECORD, steps, 'record');
  const contents = new Map<string, Buffer>();
  let last = await pauseInto(store, { memory: 'DDDD', disk: 'DDDD' });
  contents.set(last.build.id, last.content.memory);
  let stopped = false;
  const pausing = (async () => {
    while (!stopped) {
      const before = last.build.id;
      // Now and then nothing of the parent is left, and it goes.
      const memory = Math.random() < 0.5 ? 'DDDD' : 'D...';
      last = await pauseInto(store, { memory, disk: memory }, last);
      contents.set(last.build.id, last.content.memory);
      await releaseBuild(store, steps, 'pause', before);
    }
  })();
  try {
    for (let round = 0; round < 20; round++) {
      const into = path.join(data, `.backup-${round}`);
      await mkdir(into);
      const staged = await stage(data, into, new Set([SANDBOX.id]));
      assert.deepEqual(staged.sandboxes, [{ id: 'sb1', running: false }], JSON.stringify(staged.left_out));
      const copy = new BuildStore(into);
      const head = await readHead(copy, SANDBOX);
      const { memory } = await verifyBuild(copy, head!.build);
      // The head is there a little before the pause that made it returns.
      while (!contents.has(head!.build)) await nextTurn();
      assert.deepEqual(await assemble(memory!), contents.get(head!.build));
      await rm(into, { recursive: true });
    }
  } finally {
    stopped = true;
    await pausing;
  }
  assert.ok(contents.size > 3);
});
