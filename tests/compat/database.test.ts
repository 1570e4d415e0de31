/** A database of the first schema is brought to this one, and its sandboxes, templates and keys work on. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { PGlite } from '@electric-sql/pglite';
import { SandboxInfoSchema } from '@thaw/api/rpc';
import { Thaw } from '@thaw/sdk';
import { Kysely, PGliteDialect } from 'kysely';
import pg from 'pg';
import { pino } from 'pino';
import { readConfig } from '../../packages/control-plane/src/config.ts';
import { migrate } from '../../packages/control-plane/src/db/migrations.ts';
import type { Schema } from '../../packages/control-plane/src/db/schema.ts';
import { ThrowawayCluster } from '../../packages/control-plane/src/db/throwaway.ts';
import { FakeAgent } from '../../packages/control-plane/src/host/fake-agent.ts';
import { findSandbox } from '../../packages/control-plane/src/sandbox/table.ts';
import { type ControlPlane, startControlPlane } from '../../packages/control-plane/src/start.ts';
import { type Expected, readExpected, readSql } from './fixture.ts';

describe('a database of the first schema', () => {
  let undo: AsyncDisposableStack;
  let agent: FakeAgent;
  let plane: ControlPlane;
  let thaw: Thaw;
  let expected: Expected;
  before(async () => {
    await using open = new AsyncDisposableStack();
    expected = await readExpected();
    const cluster = open.use(await ThrowawayCluster.start());
    const url = await cluster.database();
    const client = new pg.Client(url);
    await client.connect();
    await client.query(await readSql());
    await client.end();
    const folder = await mkdtemp(path.join(tmpdir(), 'thaw-compat-'));
    open.defer(() => rm(folder, { recursive: true, force: true }));
    agent = open.use(await new FakeAgent(path.join(folder, 'agent.sock')).listen());
    const hosted = create(SandboxInfoSchema, {
      sandboxId: expected.sandbox,
      status: 'paused',
      memoryMb: 128,
    });
    agent.sandboxes.set(expected.sandbox, hosted);
    const config = readConfig({
      DATABASE_URL: url,
      THAW_AGENT_SOCKET: agent.socketPath,
      THAW_LISTEN: '127.0.0.1:0',
    });
    plane = open.use(await startControlPlane(config, pino({ level: 'silent' })));
    thaw = new Thaw({ url: plane.url, key: expected.key });
    undo = open.move();
  });
  after(() => undo?.disposeAsync());

  it('keeps every row and what it says', async () => {
    const found = await thaw.sandboxes.get(expected.sandbox);
    assert.equal(found.status, 'paused');
    assert.deepEqual(found.metadata, { app: 'old ü' });
    assert.equal(found.build?.stored_bytes, 5_000_000_000);
    assert.equal(found.created_at, '2025-11-23T12:00:06.123Z');
    const rows = await plane.plane.db.selectFrom('sandboxes').select('id').execute();
    // One of the six is a create that was cut off: it may be settled by now.
    assert.ok(rows.length >= 5, JSON.stringify(rows));
  });

  it('keeps its key, which may administrate, and its paused sandbox, which goes on', async () => {
    const [key] = await thaw.keys.list();
    assert.equal(key?.admin, true);
    assert.deepEqual(key?.quota, { sandboxes: null, vcpus: null, memory_mb: null, disk_mb: null });
    const resumed = await thaw.sandboxes.resume(expected.sandbox);
    assert.equal(resumed.status, 'running');
    assert.equal((await thaw.sandboxes.pause(expected.sandbox)).status, 'paused');
    await thaw.sandboxes.delete(expected.sandbox);
  });

  it('is migrated by PGlite alike', async () => {
    const pglite = new PGlite();
    const db = new Kysely<Schema>({ dialect: new PGliteDialect({ pglite }) });
    try {
      await pglite.exec(await readSql());
      // A dump leaves the search path empty for its session.
      await pglite.exec('set search_path to public');
      await migrate(db);
      const row = await findSandbox(db, 'default', expected.sandbox);
      assert.equal(row?.on_timeout, 'pause');
      assert.equal(row?.key_id, null);
    } finally {
      await db.destroy();
    }
  });
});
