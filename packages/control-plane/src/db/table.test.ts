import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { newSandboxId } from '@thaw/api';
import { pino } from 'pino';
import { makeFirstKey } from '../auth/key.ts';
import { pruneBuilds, upsertBuild } from '../build/table.ts';
import { findSandbox, insertSandbox, listSandboxes, moveSandbox, removeSandbox } from '../sandbox/table.ts';
import { findTemplate, listTemplates, removeTemplate, upsertTemplate } from '../template/table.ts';
import { connectDatabase, type Database } from './connect.ts';
import { migrate } from './migrations.ts';
import { memoryDatabase } from './pglite.ts';
import { ThrowawayCluster } from './throwaway.ts';

const engines: Record<string, () => Promise<{ db: Database; close: () => Promise<void> }>> = {
  PostgreSQL: async () => {
    const cluster = await ThrowawayCluster.start();
    const db = connectDatabase(await cluster.database(), pino({ level: 'silent' }));
    return {
      db,
      close: async () => {
        await db.destroy();
        await cluster[Symbol.asyncDispose]();
      },
    };
  },
  PGlite: async () => {
    const db = memoryDatabase();
    return { db, close: () => db.destroy() };
  },
};

for (const [name, open] of Object.entries(engines)) {
  describe(`tables on ${name}`, () => {
    it('do what the verbs need', async () => {
      const { db, close } = await open();
      try {
        await Promise.all(name === 'PostgreSQL' ? [migrate(db), migrate(db)] : [migrate(db)]);
        await migrate(db);
        await sandboxes(db);
        await templates(db);
        assert.match((await makeFirstKey(db)) ?? '', /^e2b_[0-9a-f]{40}$/);
        assert.equal(await makeFirstKey(db), undefined);
      } finally {
        await close();
      }
    });
  });
}

async function sandboxes(db: Database): Promise<void> {
  const ids = Array.from({ length: 5 }, newSandboxId);
  for (const id of ids) {
    await insertSandbox(db, {
      id,
      team_id: 'default',
      template_id: 'minimal',
      template: 'minimal',
      status: 'pending',
      vcpus: 1,
      memory_mb: 512,
      disk_mb: 4096,
      metadata: JSON.stringify({ id, quote: `'"\\` }),
    });
  }
  const [id, other] = ids as [string, string];
  await upsertBuild(db, { id: 'b1', parent_id: null, generation: 3, stored_bytes: 5_000_000_000 });
  const moved = await moveSandbox(db, id, ['pending'], { status: 'running', build_id: 'b1' });
  assert.equal(moved?.status, 'running');
  assert.equal(moved?.revision, 1);
  assert.equal(Number(moved?.build_stored_bytes), 5_000_000_000);
  assert.equal(await moveSandbox(db, id, ['pending', 'paused'], { status: 'stopped' }), undefined);
  assert.equal(await moveSandbox(db, id, ['running'], { status: 'pausing' }, 0), undefined);
  const racing = await Promise.all(
    [1, 2, 3].map(() => moveSandbox(db, id, ['running'], { status: 'pausing' }, 1)),
  );
  assert.equal(racing.filter((row) => row !== undefined).length, 1);

  const row = await findSandbox(db, 'default', id);
  assert.deepEqual(row?.metadata, { id, quote: `'"\\` });
  assert.ok(row?.created_at instanceof Date);
  assert.equal(row?.build_generation, 3);
  assert.equal(await findSandbox(db, 'nobody', id), undefined);

  const first = await listSandboxes(db, 'default', {}, 3);
  const last = first.at(-1)!;
  const rest = await listSandboxes(db, 'default', {}, 3, { createdAt: last.created_at, id: last.id });
  assert.deepEqual([...first, ...rest].map((one) => one.id).sort(), [...ids].sort());
  assert.equal((await listSandboxes(db, 'default', { metadata: { id: other } }, 10)).length, 1);
  assert.equal((await listSandboxes(db, 'default', { status: ['pausing'] }, 10)).length, 1);
  await removeSandbox(db, other, ['running']);
  assert.ok(await findSandbox(db, 'default', other));
  await removeSandbox(db, other, ['pending']);
  assert.equal(await findSandbox(db, 'default', other), undefined);
}

async function templates(db: Database): Promise<void> {
  const snapshot = { id: 'tpl1', team_id: 'default', name: 'app', type: 'snapshot', disk_mb: 1024 } as const;
  await upsertTemplate(db, { id: 'minimal', team_id: null, name: 'minimal', type: 'base', disk_mb: 512 });
  await assert.rejects(
    upsertTemplate(db, { id: 'twin', team_id: null, name: 'minimal', type: 'base', disk_mb: 1 }),
  );
  await upsertTemplate(db, { ...snapshot, build_id: 'b1', vcpus: 2, memory_mb: 256 });
  await upsertTemplate(db, { ...snapshot, build_id: 'b1', vcpus: 4, memory_mb: 256 });
  assert.equal((await findTemplate(db, 'default', 'app'))?.vcpus, 4);
  assert.equal((await findTemplate(db, 'default', 'tpl1'))?.name, 'app');
  assert.equal(await findTemplate(db, 'nobody', 'app'), undefined);
  assert.equal((await findTemplate(db, 'nobody', 'minimal'))?.type, 'base');
  assert.deepEqual(
    (await listTemplates(db, 'default', { type: 'snapshot' }, 10)).map((template) => template.id),
    ['tpl1'],
  );
  await removeTemplate(db, 'tpl1', 'an older build');
  assert.ok(await findTemplate(db, 'default', 'tpl1'));

  // Builds older than an hour stay as long as something needs them, parents included.
  const old = new Date(Date.now() - 7_200_000);
  const build = { generation: 0, stored_bytes: 1, created_at: old };
  await upsertBuild(db, { ...build, id: 'grandparent', parent_id: null });
  await upsertBuild(db, { ...build, id: 'parent', parent_id: 'grandparent' });
  await upsertBuild(db, { ...build, id: 'orphan', parent_id: 'grandparent' });
  await upsertBuild(db, { ...build, id: 'b2', parent_id: 'parent' });
  await upsertTemplate(db, { ...snapshot, build_id: 'b2' });
  await pruneBuilds(db);
  const left = await db.selectFrom('builds').select('id').orderBy('id').execute();
  assert.deepEqual(
    left.map(({ id }) => id),
    ['b1', 'b2', 'grandparent', 'parent'],
  );
  await removeTemplate(db, 'tpl1', 'b2');
  await pruneBuilds(db);
  assert.equal((await db.selectFrom('builds').select('id').execute()).length, 1);
}
