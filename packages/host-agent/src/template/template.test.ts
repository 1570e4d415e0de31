import assert from 'node:assert/strict';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { type TestContext, test } from 'node:test';
import pino from 'pino';
import { pauseInto, testStore } from '../build/fixture.ts';
import { readHead } from '../build/head.ts';
import type { BuildStore } from '../build/store.ts';
import type { Host } from '../host.ts';
import { Places } from '../sandbox/places.ts';
import { deleteTemplate } from './delete.ts';
import { listTemplates } from './list.ts';
import { tagTemplate } from './tag.ts';

const OWNER = { kind: 'template', id: 'tplaaaaaaaaaaaaaaaaaaaa' } as const;

async function hostWithTemplate(t: TestContext): Promise<{ host: Host; builds: BuildStore }> {
  const builds = await testStore(t);
  const { build } = await pauseInto(builds, { memory: 'D', disk: 'D' }, undefined, { owner: OWNER });
  const facts = { name: 'frozen', type: 'snapshot', memoryMb: 128, counter: 1, createdAt: 1 };
  await writeFile(builds.paths.head(OWNER), JSON.stringify({ format: 1, build: build.id, facts }));
  const parts: Partial<Host> = { builds, log: pino({ level: 'silent' }), fault: undefined };
  const host = { ...parts, places: new Places(() => host, 0) } as Host;
  return { host, builds };
}

test('a template whose build is damaged stays in the list, with what is known and the reason', async (t) => {
  const { host, builds } = await hostWithTemplate(t);
  const [whole] = await listTemplates(host);
  assert.ok(whole !== undefined && !('errorReason' in whole));
  const manifest = builds.paths.build((await readHead(builds, OWNER))!.build).manifest;
  const bytes = await readFile(manifest);
  await rm(manifest);
  const [damaged] = await listTemplates(host);
  assert.ok(damaged !== undefined && 'errorReason' in damaged);
  assert.deepEqual([damaged.id, damaged.facts?.name, damaged.facts?.type], [OWNER.id, 'frozen', 'snapshot']);
  assert.match(damaged.errorReason, /is damaged/);
  await writeFile(manifest, bytes);
  assert.deepEqual(await listTemplates(host), [whole]);
});

test('a template whose head is damaged stays in the list and can be deleted', async (t) => {
  const { host, builds } = await hostWithTemplate(t);
  for (const content of ['', 'not a head', '{"format":1,"build":"x","facts":{}}']) {
    await writeFile(builds.paths.head(OWNER), content);
    const [damaged] = await listTemplates(host);
    assert.ok(damaged !== undefined && 'errorReason' in damaged);
    assert.equal(damaged.facts, undefined);
    assert.match(damaged.errorReason, /head of template/);
  }
  await deleteTemplate(host, OWNER.id);
  assert.deepEqual(await listTemplates(host), []);
  assert.deepEqual(await readdir(builds.paths.owners('template')), []);
});

test('a tag keeps the build of what it was made from, until the last name of it is gone', async (t) => {
  const { host, builds } = await hostWithTemplate(t);
  const { build } = (await readHead(builds, OWNER))!;
  const tag = { id: `${OWNER.id}:v1.0`, name: 'frozen:v1.0' };
  const made = await tagTemplate(host, OWNER.id, tag);
  assert.deepEqual([made.id, made.name, made.build.id, made.createdAt], [tag.id, tag.name, build, 1]);
  assert.deepEqual((await listTemplates(host)).map(({ id }) => id).sort(), [OWNER.id, tag.id]);
  // Given again it is the same.
  assert.deepEqual(await tagTemplate(host, OWNER.id, tag), made);
  await deleteTemplate(host, OWNER.id);
  assert.deepEqual(await listTemplates(host), [made]);
  assert.ok((await readdir(builds.paths.builds)).includes(build));
  for (const id of ['../x', 'tpl:', 'tpl:a/b', 'tpl:a:b', ':v1'])
    await assert.rejects(tagTemplate(host, tag.id, { ...tag, id }), /not an id of a template/);
  await assert.rejects(tagTemplate(host, OWNER.id, tag), /has nothing to start from/);
  await deleteTemplate(host, tag.id);
  assert.deepEqual(await readdir(builds.paths.builds), []);
  assert.deepEqual(await readdir(builds.paths.owners('template')), []);
});
