/** Builds, heads and records of the first format are read by this version, to the last byte. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { stage } from '../../packages/host-agent/src/backup/stage.ts';
import { acquireHead } from '../../packages/host-agent/src/build/acquire.ts';
import { assemble, pauseInto } from '../../packages/host-agent/src/build/fixture.ts';
import { readHead } from '../../packages/host-agent/src/build/head.ts';
import { openBuildStore } from '../../packages/host-agent/src/build/store.ts';
import { verifyBuild } from '../../packages/host-agent/src/build/verify.ts';
import { isPaused, readRecords } from '../../packages/host-agent/src/sandbox/record.ts';
import { templateFacts } from '../../packages/host-agent/src/template/facts.ts';
import { copyData, readExpected } from './fixture.ts';

const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

test('every build verifies and holds what it held', async () => {
  await using fixture = await copyData();
  const store = await openBuildStore(fixture.data);
  for (const { id, memory, disk } of (await readExpected()).builds) {
    const build = await verifyBuild(store, id);
    assert.equal(build.memory === null ? null : digest(await assemble(build.memory)), memory, id);
    assert.equal(digest(await assemble(build.disk)), disk, id);
  }
});

test('heads and records say what they said, and a new build goes on top of them', async () => {
  await using fixture = await copyData();
  const { data } = fixture;
  const store = await openBuildStore(data);
  const { sandbox, template, builds } = await readExpected();
  const owner = { kind: 'sandbox', id: sandbox } as const;
  const { build, hold } = await acquireHead(store, owner);
  using _ = hold;
  assert.equal(build.id, builds[2]!.id);
  const records = await readRecords({ data, run: data }, (id, error) => assert.fail(`${id}: ${error}`));
  assert.equal(records.length, 1);
  assert.deepEqual(records[0]!.env, { GREETING: 'hello' });
  assert.ok(isPaused(records[0]!, (await readHead(store, owner))!.facts));
  const facts = async (id: string) => templateFacts((await readHead(store, { kind: 'template', id }))!.facts);
  assert.equal((await facts('minimal')).image, 'image-1');
  assert.deepEqual(await facts(template), {
    name: 'ready',
    type: 'snapshot',
    memoryMb: 128,
    counter: 7,
    createdAt: 1_763_900_100,
  });
  const content = { memory: await assemble(build.memory!), disk: await assemble(build.disk) };
  const next = await pauseInto(
    store,
    { memory: 'D.0.....', disk: '..D.....' },
    { build, content },
    { owner },
  );
  assert.equal(next.build.memory!.header.generation, 2);
  assert.deepEqual(await assemble(next.build.memory!), next.content.memory);
  assert.deepEqual(await assemble((await verifyBuild(store, next.build.id)).disk), next.content.disk);
});

test('a backup takes them along', async () => {
  await using fixture = await copyData();
  const into = path.join(fixture.data, '.backup-test');
  await mkdir(into);
  const { sandbox, template } = await readExpected();
  const staged = await stage(fixture.data, into, new Set([sandbox]));
  assert.deepEqual(staged, {
    sandboxes: [{ id: sandbox, running: false }],
    templates: ['minimal', template],
    left_out: [],
  });
});
