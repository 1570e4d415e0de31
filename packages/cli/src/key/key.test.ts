import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestPlane } from '../../../control-plane/src/testing.ts';
import * as testing from '../testing.ts';

test('keys are made, listed, limited and revoked', async () => {
  await using plane = await TestPlane.start();
  const thaw = (args: string[], key = plane.key) => testing.thaw(plane, key, args);
  const done = (...args: string[]) => testing.done(plane, plane.key, args);

  const key = await done('key', 'create', 'ci', '--sandboxes', '1', '--memory', '1024');
  assert.match(key, /^e2b_[0-9a-f]{40}$/);
  assert.equal((await thaw(['sandbox', 'create', '--memory', '256'], key)).code, 0);
  const refused = await thaw(['sandbox', 'create'], key);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /quota of key ci is used up: sandboxes: the most is 1, this would make 2/);
  assert.match((await thaw(['key', 'ls'], key)).stderr, /may not manage keys/);
  assert.match(await done('key', 'ls'), /ci +e2b_[0-9a-f]{4}… +- +1 of 1 +1 +256 of 1024 +4096/);
  const keys: { id: string; name: string }[] = JSON.parse(await done('key', 'ls', '--json'));
  const { id } = keys.find(({ name }) => name === 'ci')!;
  assert.match(await done('key', 'quota', id, '--sandboxes', 'none', '--vcpus', '2'), /^vcpus +1 of 2$/m);
  assert.match(await done('key', 'quota', id), /^sandboxes +1$/m);
  assert.equal((await thaw(['sandbox', 'create'], key)).code, 0);
  assert.match(await done('key', 'quota', 'team', '--disk', '100000'), /^disk_mb +8192 of 100000$/m);
  await done('key', 'revoke', id);
  assert.match((await thaw(['sandbox', 'ls'], key)).stderr, /not valid/);
  const last = await thaw(['key', 'revoke', keys.find(({ name }) => name !== 'ci')!.id]);
  assert.match(last.stderr, /last one that may administrate/);
  assert.match((await thaw(['key', 'quota', 'key_nosuch'])).stderr, /does not exist/);
  for (const wrong of [
    ['create'],
    ['create', 'x', '--sandboxes', '-1'],
    ['quota', 'team', '--vcpus', 'x'],
    [],
  ])
    assert.equal((await thaw(['key', ...wrong])).code, 2, wrong.join(' '));
});
