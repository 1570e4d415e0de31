/** A base template boots once in each size; what is created from it later is restored from there. */
import assert from 'node:assert/strict';
import { readdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { assertNothingStray, headOf } from './builds.ts';
import { FAULTS, faultHappened, setFault } from './faults.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

/** What differs in two sandboxes of one template. */
const IDENTITY =
  'hostname; cat /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid';

describe('what a base template is when it has booted', () => {
  let thaw: TestThaw;
  before(async () => {
    thaw = await startThaw({ env: { ...FAULTS, THAW_KEPT_BOOTS: '2', THAW_BUILD_GRACE_SEC: '1' } });
  });
  after(() => thaw?.stop());

  const boots = () => readdir(path.join(thaw.data, 'boots'));
  const create = (memory_mb = 128) => thaw.sdk.sandboxes.create({ template: 'minimal', memory_mb });
  const booted = ({ timings_ms }: { timings_ms?: Record<string, number> | undefined }) =>
    Object.keys(timings_ms ?? {}).some((label) => label === 'boot:dump');

  it('is kept by the first create, and a later one is restored from it as somebody else', async () => {
    const first = await create();
    assert.ok(booted(first));
    assert.equal((await boots()).length, 1);
    await thaw.sh(first.id, 'echo mine > /root/mine; echo mine > /dev/shm/mine; sync');
    const second = await create();
    assert.ok(!booted(second));
    assert.equal(await thaw.sh(second.id, 'ls /root /dev/shm | grep -c mine || true'), '0\n');
    const [one, other] = await Promise.all([first, second].map(({ id }) => thaw.sh(id, IDENTITY)));
    const lines = one!.split('\n').slice(0, 4);
    for (const [at, line] of other!.split('\n').slice(0, 4).entries()) assert.notEqual(line, lines[at]);
    for (const { id } of [first, second]) {
      await thaw.sh(id, 'date +%s > /root/now; sync');
      await thaw.sdk.sandboxes.pause(id);
      await thaw.sdk.sandboxes.resume(id);
      const seconds = Number(await thaw.sh(id, 'cat /root/now; true'));
      assert.ok(Math.abs(seconds - Date.now() / 1000) < 60, `${seconds}`);
    }
    await thaw.destroyAll();
    await eventually(() => assertNothingStray(thaw));
  });

  it('is made once for creates that come together', async () => {
    const made = await Promise.all(Array.from({ length: 3 }, () => create(160)));
    assert.equal(made.filter(booted).length, 1);
    await Promise.all(made.map(({ id }) => thaw.sh(id, 'true')));
    await thaw.destroyAll();
  });

  it('makes room for what is used more, and its build goes with its last sandbox', async () => {
    const { id } = await create(160);
    const before = await boots();
    await create(144);
    await create(152);
    const now = await boots();
    assert.equal(now.length, 2);
    assert.deepEqual(
      before.filter((name) => now.includes(name)),
      [],
    );
    assert.equal(await thaw.sh(id, 'echo still here'), 'still here\n');
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    assert.equal(await thaw.sh(id, 'echo still here'), 'still here\n');
    await thaw.destroyAll();
    await eventually(() => assertNothingStray(thaw));
  });

  it('is booted again when it is damaged', async () => {
    await create(168);
    for (const name of await boots()) {
      const build = await headOf(thaw, 'boots', name);
      await rm(path.join(thaw.data, 'builds', build, 'manifest.json'));
    }
    const again = await create(168);
    assert.ok(booted(again));
    assert.equal(await thaw.sh(again.id, 'echo fine'), 'fine\n');
    for (const name of await boots())
      await writeFile(path.join(thaw.data, 'boots', name, 'head'), 'not a head');
    const third = await create(168);
    assert.ok(booted(third));
    await thaw.destroyAll();
  });

  it('is not kept when a step of that fails, and the sandbox runs all the same', async () => {
    const steps = ['rehearse', 'prepare', 'dump', 'commit-head', 'rebase-memory', 'rebase-disk'];
    let memory_mb = 176;
    for (const step of steps) {
      memory_mb += 8;
      await setFault(thaw, `boot:${step}`);
      const { id } = await create(memory_mb);
      assert.ok(await faultHappened(thaw), step);
      assert.equal(await thaw.sh(id, 'echo fine > /root/x; sync; cat /root/x'), 'fine\n', step);
      await thaw.sdk.sandboxes.pause(id);
      await thaw.sdk.sandboxes.resume(id);
      assert.equal(await thaw.sh(id, 'cat /root/x'), 'fine\n', step);
      await thaw.sdk.sandboxes.delete(id);
      await eventually(() => assertNothingStray(thaw, step));
    }
  });

  it('is of another time after an upgrade: the host agent that starts then forgets it', async () => {
    await create(136);
    await thaw.destroyAll();
    const names = await boots();
    const folder = (id: string) => path.join(thaw.data, 'boots', id);
    // What it depends on is its name: of another kernel it has another one.
    const other = (name: string) => name.replace(/^./, (first) => (first === '0' ? '1' : '0'));
    await thaw.restart(async () => {
      for (const name of names) await rename(folder(name), folder(other(name)));
    });
    assert.deepEqual(await boots(), []);
    await eventually(() => assertNothingStray(thaw));
    assert.ok(booted(await create(136)));
    await thaw.restart();
    const again = await create(136);
    assert.ok(!booted(again), 'one that is of this time stays');
    await thaw.destroyAll();
  });
});
