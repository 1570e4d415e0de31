import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { Sandbox, SnapshotInfo, SnapshotListOpts } from 'e2b';
import { type Cases, fails, type Sdk, sh } from './stage.ts';

async function list(sdk: Sdk, options: SnapshotListOpts): Promise<SnapshotInfo[]> {
  const pages = sdk.Sandbox.listSnapshots(options);
  const found: SnapshotInfo[] = [];
  while (pages.hasNext) found.push(...(await pages.nextItems()));
  return found;
}

/** What is only in memory: a file of a tmpfs. */
const IN_MEMORY = '/dev/shm/state';

export const snapshots: Cases = {
  'snapshots/create': async ({ sdk, create, keep }) => {
    const sandbox = await create({ envs: { WHO: 'first' } });
    await sandbox.files.write(IN_MEMORY, 'frozen');
    await sandbox.files.write('note.txt', 'frozen too');
    const before = await sandbox.getInfo();
    const snapshot = await sandbox.createSnapshot();
    assert.ok(snapshot.snapshotId.length > 0);
    // It goes on, under its id and with its end.
    assert.equal(await sandbox.isRunning(), true);
    assert.deepEqual((await sandbox.getInfo()).endAt, before.endAt);
    await sandbox.files.write(IN_MEMORY, 'changed since');
    assert.ok(
      (await list(sdk, { sandboxId: sandbox.sandboxId })).some(
        ({ snapshotId }) => snapshotId === snapshot.snapshotId,
      ),
    );

    const spawned: Sandbox[] = [];
    for (const who of ['second', 'third']) {
      spawned.push(await create({ template: snapshot.snapshotId, envs: { WHO: who } }));
    }
    assert.equal(new Set([sandbox, ...spawned].map(({ sandboxId }) => sandboxId)).size, 3);
    for (const [index, one] of spawned.entries()) {
      assert.equal(await one.files.read(IN_MEMORY), 'frozen');
      assert.equal(await one.files.read('note.txt'), 'frozen too');
      assert.equal(
        await sh(one, 'echo $WHO $E2B_SANDBOX_ID'),
        `${['second', 'third'][index]} ${one.sandboxId}`,
      );
    }
    // It outlives its sandbox.
    await Promise.all([sandbox, ...spawned].map((one) => one.kill()));
    const late = keep(await sdk.Sandbox.create(snapshot.snapshotId));
    assert.equal(await late.files.read(IN_MEMORY), 'frozen');
    await late.kill();
    assert.equal(await sdk.Sandbox.deleteSnapshot(snapshot.snapshotId), true);
    assert.equal(await sdk.Sandbox.deleteSnapshot(snapshot.snapshotId), false);
    await fails(sdk.Sandbox.create(snapshot.snapshotId), 'SandboxError', 'NotFoundError');
  },

  'snapshots/named': async ({ sdk, create }) => {
    const name = `snap-${randomUUID().slice(0, 8)}`;
    const sandbox = await create();
    await sandbox.files.write('version', '1');
    const first = await sandbox.createSnapshot({ name: `${name}:v1` });
    assert.ok(
      first.names.some((said) => said.includes(name)),
      first.names.join(),
    );
    await sandbox.files.write('version', '2');
    const second = await sandbox.createSnapshot({ name });
    for (const [template, version] of [
      [`${name}:v1`, '1'],
      [name, '2'],
      [first.snapshotId, '1'],
      [second.snapshotId, '2'],
    ] as const) {
      const spawned = await create({ template });
      assert.equal(await spawned.files.read('version'), version, template);
      await spawned.kill();
    }
    assert.ok((await list(sdk, { name })).length >= 1);
    assert.deepEqual(await list(sdk, { name: 'no-such-name' }), []);
    await sandbox.kill();
    assert.equal(await sdk.Sandbox.deleteSnapshot(name), true);
    assert.equal(await sdk.Sandbox.deleteSnapshot(name), false);
    await fails(sandbox.createSnapshot(), 'SandboxNotFoundError');
  },

  'snapshots/fork': async ({ sdk, create, keep }) => {
    const sandbox = await create({ metadata: { role: 'source' } });
    await sandbox.files.write(IN_MEMORY, 'shared');
    const forks = await sandbox.fork({ count: 2, timeoutMs: 120_000 });
    assert.equal(forks.length, 2);
    const made = forks.map((fork) => {
      if (fork instanceof Error) throw fork;
      return keep(fork);
    });
    assert.equal(new Set([sandbox, ...made].map(({ sandboxId }) => sandboxId)).size, 3);
    for (const [index, fork] of made.entries()) {
      assert.equal(await fork.files.read(IN_MEMORY), 'shared');
      await fork.files.write(IN_MEMORY, `own ${index}`);
      assert.equal(await sh(fork, 'echo $E2B_SANDBOX_ID'), fork.sandboxId);
    }
    for (const [index, fork] of made.entries()) {
      assert.equal(await fork.files.read(IN_MEMORY), `own ${index}`);
    }
    assert.equal(await sandbox.files.read(IN_MEMORY), 'shared');
    // Some versions see it themselves.
    await fails(sandbox.fork({ count: 0 }), 'SandboxError', 'InvalidArgumentError');
    await fails(sdk.Sandbox.fork('i0000000000000000000'), 'SandboxNotFoundError');
  },

  'templates/tags': async ({ sdk, create }) => {
    const { Template } = sdk;
    const name = `tagged-${randomUUID().slice(0, 8)}`;
    const sandbox = await create();
    await sandbox.files.write('version', '1');
    await sandbox.createSnapshot({ name: `${name}:v1` });
    const assigned = await Template.assignTags(`${name}:v1`, ['production', 'stable']);
    assert.deepEqual(assigned.tags.toSorted(), ['production', 'stable']);
    const tags = async () =>
      Object.fromEntries((await Template.getTags(name)).map(({ tag, buildId }) => [tag, buildId]));
    const known = await tags();
    for (const tag of ['v1', 'production', 'stable']) assert.equal(known[tag], assigned.buildId, tag);
    const spawned = await create({ template: `${name}:production` });
    assert.equal(await spawned.files.read('version'), '1');
    await spawned.kill();
    await Template.removeTags(name, ['production', 'stable']);
    assert.deepEqual(
      Object.keys(await tags()).filter((tag) => ['production', 'stable'].includes(tag)),
      [],
    );
    await fails(create({ template: `${name}:production` }), 'SandboxError');
    await fails(Template.assignTags('no-such-template', 'v1'), 'TemplateError');
    await sandbox.kill();
    assert.equal(await sdk.Sandbox.deleteSnapshot(`${name}:v1`), true);
  },

  'templates/exists': async ({ sdk }) => {
    assert.equal(await sdk.Template.exists('base'), true);
    assert.equal(await sdk.Template.exists('no-such-template'), false);
  },
};
