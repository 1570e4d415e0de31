/** Forks of real VMs: all that their source was at one instant, and nothing of its identity. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Fork, Sandbox } from '@thaw/api';
import { assertNothingStray } from './builds.ts';
import { FAULTS, setFault } from './faults.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { fullTraces } from './places.ts';

await ownHost(import.meta.filename);

const SLOTS = 2;
const COUNTER = 'i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.02; done';

describe('forks', () => {
  let thaw: TestThaw;
  let source: Sandbox;
  before(async () => {
    const env = { ...FAULTS, THAW_SLOT_POOL: String(SLOTS), THAW_BUILD_GRACE_SEC: '1' };
    thaw = await startThaw({ env });
    source = await thaw.sdk.sandboxes.create({ memory_mb: 256, env: { FROM: 'source', WHO: 'source' } });
    await thaw.sh(
      source,
      `(${COUNTER}) > /dev/null 2>&1 & echo disk > /root/mark; head -c 8000000 /dev/urandom > /dev/shm/random; md5sum /dev/shm/random > /dev/shm/sum; sync`,
    );
  });
  after(() => thaw.stop());

  const started = (forks: Fork[]): Sandbox[] =>
    forks.map((one) => {
      assert.ok('sandbox' in one, JSON.stringify(one));
      return one.sandbox;
    });
  const count = async (sandbox: Sandbox) =>
    Number(await thaw.sh(sandbox, 'until n=$(cat /dev/shm/count) && [ -n "$n" ]; do :; done; echo $n'));

  it('go on from where their source is, each by itself', async () => {
    const before = await count(source);
    const forks = started(await thaw.sdk.sandboxes.fork(source.id, { count: 3, env: { WHO: 'fork' } }));
    assert.equal(forks.length, 3);
    for (const fork of forks) {
      assert.equal(await thaw.sh(fork, 'md5sum -c --quiet /dev/shm/sum; cat /root/mark'), 'disk\n');
      const first = await count(fork);
      assert.ok(first >= before, `${first} after ${before}`);
      await eventually(async () => assert.ok((await count(fork)) > first, 'its processes go on'));
      assert.equal(await thaw.sh(fork, 'hostname; echo $FROM $WHO'), `${fork.id}\nsource fork\n`);
      await thaw.sh(fork, `echo ${fork.id} > /root/mark; echo ${fork.id} > /dev/shm/mark; sync`);
    }
    const random = await Promise.all(
      [source, ...forks].map((one) =>
        thaw.sh(one, 'head -c 16 /dev/urandom | od -An -tx1; cat /etc/machine-id'),
      ),
    );
    assert.equal(new Set(random).size, 4);
    assert.equal(await thaw.sh(source, 'cat /root/mark; test ! -e /dev/shm/mark'), 'disk\n');
    for (const fork of forks) assert.equal(await thaw.sh(fork, 'cat /root/mark'), `${fork.id}\n`);
    // A fork is a sandbox like any other: it pauses, and is forked itself.
    await thaw.sdk.sandboxes.pause(forks[0]!.id);
    const [grandchild] = started(await thaw.sdk.sandboxes.fork(forks[0]!.id));
    assert.equal(
      await thaw.sh(grandchild!, 'cat /root/mark /dev/shm/mark'),
      `${forks[0]!.id}\n${forks[0]!.id}\n`,
    );
    assert.equal((await thaw.sdk.sandboxes.get(forks[0]!.id)).status, 'paused');
    for (const { id } of [...forks, grandchild!]) await thaw.sdk.sandboxes.delete(id);
  });

  it('outlive their source, and it loses nothing by them', async () => {
    await thaw.sh(source, 'echo later > /dev/shm/later');
    const [fork] = started(await thaw.sdk.sandboxes.fork(source.id));
    await thaw.sdk.sandboxes.pause(source.id);
    await thaw.sdk.sandboxes.resume(source.id);
    assert.equal(await thaw.sh(source, 'md5sum -c --quiet /dev/shm/sum; cat /dev/shm/later'), 'later\n');
    const other = await thaw.sdk.sandboxes.create({ memory_mb: 256 });
    await thaw.sh(other, 'echo mine > /dev/shm/mark');
    const [orphan] = started(await thaw.sdk.sandboxes.fork(other.id));
    await thaw.sdk.sandboxes.delete(other.id);
    assert.equal(await thaw.sh(orphan!, 'cat /dev/shm/mark'), 'mine\n');
    assert.equal(await thaw.sh(fork!, 'md5sum -c --quiet /dev/shm/sum; cat /dev/shm/later'), 'later\n');
    for (const { id } of [fork!, orphan!]) await thaw.sdk.sandboxes.delete(id);
    await eventually(() => assertNothingStray(thaw, 'forks destroyed'));
  });

  it('that do not start are told one by one, and leave nothing', async () => {
    const idle = await fullTraces(thaw, SLOTS, 1);
    await setFault(thaw, 'create:init', 'fail');
    const forks = await thaw.sdk.sandboxes.fork(source.id, { count: 2 });
    const failed = forks.filter((one) => 'error' in one);
    assert.equal(failed.length, 1, JSON.stringify(forks));
    const [survivor] = started(forks.filter((one) => 'sandbox' in one));
    await thaw.sh(survivor!, 'cat /root/mark');
    await thaw.sdk.sandboxes.delete(survivor!.id);
    const live = await Array.fromAsync(thaw.sdk.sandboxes.list());
    assert.deepEqual(
      live.map(({ id }) => id),
      [source.id],
    );
    const now = await thaw.settledTraces((found) => JSON.stringify(found) === JSON.stringify(idle));
    assert.deepEqual(now, idle);
    await eventually(() => assertNothingStray(thaw, 'a fork failed'));
  });

  it('are none when the source can not be sealed, which goes on', async () => {
    await setFault(thaw, 'snapshot:dump', 'fail');
    await assert.rejects(thaw.sdk.sandboxes.fork(source.id, { count: 2 }), { kind: 'internal' });
    assert.equal((await Array.fromAsync(thaw.sdk.sandboxes.list())).length, 1);
    const [fork] = started(await thaw.sdk.sandboxes.fork(source.id));
    assert.equal(await thaw.sh(fork!, 'md5sum -c --quiet /dev/shm/sum; cat /root/mark'), 'disk\n');
    await thaw.sdk.sandboxes.delete(fork!.id);
  });

  it('are made on the command line', async () => {
    const made = await thaw.cli(['sandbox', 'fork', source.id, '-n', '2']);
    assert.equal(made.code, 0, made.stderr);
    const ids = made.stdout.trim().split('\n');
    assert.equal(ids.length, 2);
    for (const id of ids) assert.equal(await thaw.sh(id, 'cat /root/mark'), 'disk\n');
    assert.equal((await thaw.cli(['sandbox', 'rm', ...ids])).code, 0);
    const unknown = await thaw.cli(['sandbox', 'fork', 'sbaaaaaaaaaaaaaaaaaaaa']);
    assert.equal(unknown.code, 1);
    assert.equal((await thaw.cli(['sandbox', 'fork', source.id, '-n', 'many'])).code, 2);
  });
});
