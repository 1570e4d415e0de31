import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { newSandboxId, type SandboxStatus } from '@thaw/api';
import { pino } from 'pino';
import { makeFirstKey } from '../auth/key.ts';
import { upsertBuild } from '../build/table.ts';
import { findSandbox, insertSandbox } from '../sandbox/table.ts';
import { connectDatabase, type Database } from './connect.ts';
import { dumpDatabase } from './dump.ts';
import { loadDatabase } from './load.ts';
import { migrate } from './migrations.ts';
import { memoryDatabase } from './pglite.ts';
import { ThrowawayCluster } from './throwaway.ts';

async function* each(lines: string[]): AsyncGenerator<string> {
  yield* lines;
}

async function add(db: Database, status: SandboxStatus, more: object = {}): Promise<string> {
  const id = newSandboxId();
  const size = { vcpus: 1, memory_mb: 512, disk_mb: 4096 };
  const template = { template_id: 'minimal', template: 'minimal' };
  const metadata = JSON.stringify({ quote: `'"\\ ü\n` });
  await insertSandbox(db, { id, team_id: 'default', ...template, status, ...size, metadata, ...more });
  return id;
}

describe('a dump of the database', () => {
  it('comes back whole on another engine, and rows without a build say so', async () => {
    await using cluster = await ThrowawayCluster.start();
    await using undo = new AsyncDisposableStack();
    const open = async () => {
      const db = connectDatabase(await cluster.database(), pino({ level: 'silent' }));
      undo.defer(() => db.destroy());
      return db;
    };
    const from = await open();
    await migrate(from);
    await makeFirstKey(from);
    await upsertBuild(from, { id: 'b1', parent_id: null, generation: 3, stored_bytes: 5_000_000_000 });
    const paused = await add(from, 'paused', { build_id: 'b1', last_active_at: new Date(1_700_000_000_123) });
    const running = await add(from, 'running', { build_id: 'b1' });
    const lost = await add(from, 'running');
    const gone = await add(from, 'paused', { build_id: 'b1' });
    const stopped = await add(from, 'stopped');
    const stopping = await add(from, 'stopping', { build_id: 'b1' });
    for (let i = 0; i < 1200; i++) await add(from, 'stopped');

    const lines = await Array.fromAsync(dumpDatabase(from));
    const saved = {
      sandboxes: [
        { id: paused, running: false },
        { id: running, running: true },
      ],
    };
    const targets = [await open(), memoryDatabase()];
    undo.defer(() => targets[1]!.destroy());
    for (const to of targets) {
      await loadDatabase(to, each(lines), saved);
      const find = async (id: string) => (await findSandbox(to, 'default', id))!;
      const before = (await findSandbox(from, 'default', paused))!;
      const after = await find(paused);
      for (const field of ['created_at', 'last_active_at', 'metadata', 'build_id', 'network'] as const)
        assert.deepEqual(after[field], before[field], field);
      assert.equal(after.status, 'paused');
      assert.equal((await find(running)).status, 'error');
      assert.match((await find(running)).error_reason ?? '', /last build/);
      for (const id of [lost, gone]) {
        const row = await find(id);
        assert.equal(row.status, 'error');
        assert.match(row.error_reason ?? '', /holds no build/);
        assert.equal(row.build_id, null);
      }
      for (const id of [stopped, stopping]) assert.equal((await find(id)).status, 'stopped');
      assert.equal(await makeFirstKey(to), undefined);
      assert.equal((await Array.fromAsync(dumpDatabase(to))).length, lines.length);
      await assert.rejects(loadDatabase(to, each(lines), saved), { kind: 'conflict' });
    }
  });

  it('is refused when it is cut, damaged or of a newer Thaw, and leaves the database empty', async () => {
    const from = memoryDatabase();
    const to = memoryDatabase();
    await using undo = new AsyncDisposableStack();
    undo.defer(() => from.destroy());
    undo.defer(() => to.destroy());
    await migrate(from);
    await add(from, 'paused');
    const lines = await Array.fromAsync(dumpDatabase(from));
    const [head = '', ...rest] = lines;
    const newer = head.replace(/"migration":"[^"]*"/, '"migration":"9999_later"');
    for (const [wrong, kind] of [
      [[], 'invalid_request'],
      [['nonsense'], 'invalid_request'],
      [lines.slice(0, -1), 'invalid_request'],
      [[head, ...rest.slice(1)], 'invalid_request'],
      [[head, '{"table":"nosuch","rows":[{}]}', ...rest], 'invalid_request'],
      [[newer, ...rest], 'conflict'],
    ] as const) {
      await assert.rejects(loadDatabase(to, each([...wrong]), { sandboxes: [] }), { kind });
    }
    await loadDatabase(to, each(lines), { sandboxes: [] });
  });

  it('may be given up half-way', async () => {
    const db = memoryDatabase();
    await using undo = new AsyncDisposableStack();
    undo.defer(() => db.destroy());
    await migrate(db);
    for await (const line of dumpDatabase(db)) {
      assert.match(line, /thaw-database/);
      break;
    }
    await add(db, 'paused');
  });

  it('says that a database is of a newer Thaw', async () => {
    const db = memoryDatabase();
    await using undo = new AsyncDisposableStack();
    undo.defer(() => db.destroy());
    await migrate(db);
    const { sql } = await import('kysely');
    await sql`insert into kysely_migration (name, timestamp) values ('9999_later', 'now')`.execute(db);
    await assert.rejects(migrate(db), { kind: 'conflict', message: /newer Thaw \(9999_later\)/ });
  });
});
