import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestPlane } from '../../../control-plane/src/testing.ts';
import * as testing from '../testing.ts';

test('teams are made, limited, renamed and deleted by an operator, and every change is told', async () => {
  await using plane = await TestPlane.start();
  const thaw = (args: string[], key = plane.key) => testing.thaw(plane, key, args);
  const done = (args: string[], key = plane.key) => testing.done(plane, key, args);

  const key = await done(['team', 'create', 'red', '--sandboxes', '1']);
  assert.match(key, /^e2b_[0-9a-f]{40}$/);
  assert.match((await thaw(['team', 'create', 'red'])).stderr, /team red exists/);
  const id = await done(['sandbox', 'create'], key);
  assert.match((await thaw(['sandbox', 'create'], key)).stderr, /the quota of team red is used up/);
  assert.equal(await done(['sandbox', 'ls', '--json']), '[]');
  assert.match((await thaw(['sandbox', 'get', id])).stderr, /does not exist/);

  assert.match(await done(['team', 'ls']), /^team_[a-z0-9]{16} +red +1 of 1 +1 +512 +4096 /m);
  assert.match(await done(['team', 'quota', 'red', '--sandboxes', '2']), /^sandboxes +1 of 2$/m);
  assert.match(await done(['team', 'quota', 'red']), /^sandboxes +1 of 2$/m);
  assert.match((await thaw(['key', 'quota', 'team', '--sandboxes', '3'], key)).stderr, /grants this team 2/);
  await done(['team', 'rename', 'red', 'crimson']);
  assert.equal(JSON.parse(await done(['team', 'ls', '--json']))[1].name, 'crimson');

  const more = await done(['key', 'create', 'ci', '--team', 'crimson', '--vcpus', '1']);
  assert.match(await done(['key', 'ls', '--team', 'crimson']), / ci +e2b_[0-9a-f]{4}… +- /);
  const keys = JSON.parse(await done(['key', 'ls', '--team', 'crimson', '--json']));
  const ci = keys.find(({ name }: { name: string }) => name === 'ci').id;
  assert.match(await done(['key', 'quota', ci, '--team', 'crimson', '--vcpus', '2']), /^vcpus +0 of 2$/m);
  assert.equal((await thaw(['key', 'revoke', ci])).code, 1);
  await done(['key', 'revoke', ci, '--team', 'crimson']);
  assert.match((await thaw(['sandbox', 'ls'], more)).stderr, /not valid/);
  assert.equal((await thaw(['key', 'quota', 'team', '--team', 'crimson'])).code, 1);

  for (const args of [['ls'], ['create', 'x'], ['quota', 'crimson'], ['rm', 'crimson', '--force']])
    assert.match((await thaw(['team', ...args], key)).stderr, /no operator's/, args.join(' '));
  const second = await done(['key', 'create', 'second', '--operator']);
  assert.match(await done(['key', 'ls'], second), / second +e2b_[0-9a-f]{4}… +operator /);

  assert.match((await thaw(['team', 'rm', 'crimson'])).stderr, /1 sandboxes and 0 templates/);
  await done(['team', 'rm', 'crimson', '--force']);
  assert.match((await thaw(['sandbox', 'ls'], key)).stderr, /not valid/);
  assert.ok(!plane.agent.sandboxes.has(id));

  const told = await done(['audit', '--target', id]);
  assert.match(told, /^\S+ +team_\S+ +e2b_[0-9a-f]{4} +127\.0\.0\.1 +destroySandbox +sb\S+ +done /m);
  assert.match(told, / createSandbox +minimal sb\S+ +done /);
  const failed = JSON.parse(await done(['audit', '--outcome', 'forbidden', '-n', '2', '--json']));
  assert.deepEqual(
    failed.map(({ verb }: { verb: string }) => verb),
    ['deleteTeam', 'createTeam'],
  );
  assert.equal((await thaw(['audit', '--since', 'today'])).code, 1);
  for (const wrong of [['create'], ['quota', 'red', '--vcpus', 'x'], ['rm'], []])
    assert.equal((await thaw(['team', ...wrong])).code, 2, wrong.join(' '));
});
