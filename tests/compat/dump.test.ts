/** A backup's dump in the form of the first schema is taken in by this version. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { PGlite } from '@electric-sql/pglite';
import { Kysely, PGliteDialect } from 'kysely';
import { dumpDatabase } from '../../packages/control-plane/src/db/dump.ts';
import { loadDatabase } from '../../packages/control-plane/src/db/load.ts';
import { migrate } from '../../packages/control-plane/src/db/migrations.ts';
import { memoryDatabase } from '../../packages/control-plane/src/db/pglite.ts';
import type { Schema } from '../../packages/control-plane/src/db/schema.ts';
import { findSandbox } from '../../packages/control-plane/src/sandbox/table.ts';
import { bringBack } from './earlier.ts';
import { readExpected, readSql } from './fixture.ts';

test('a dump of the first schema is loaded and migrated', async (t) => {
  const pglite = new PGlite();
  const from = new Kysely<Schema>({ dialect: new PGliteDialect({ pglite }) });
  const to = memoryDatabase();
  const folder = await mkdtemp(path.join(tmpdir(), 'thaw-compat-'));
  t.after(async () => {
    await from.destroy();
    await to.destroy();
    await rm(folder, { recursive: true });
  });
  await pglite.exec(await readSql());
  await pglite.exec('set search_path to public');
  await migrate(from);
  for (const name of ['sandboxes', 'templates']) await mkdir(path.join(folder, name));
  const file = path.join(folder, 'database.jsonl');
  await writeFile(file, `${(await Array.fromAsync(dumpDatabase(from))).join('\n')}\n`);
  await bringBack(folder);
  const lines = (await readFile(file, 'utf8')).trimEnd().split('\n');
  assert.match(lines[0]!, /0001_first/);
  assert.doesNotMatch(lines.join(''), /auto_resume|max_vcpus|"hosts"/);
  const { sandbox } = await readExpected();
  const saved = { sandboxes: [{ id: sandbox, running: false }] };
  await loadDatabase(
    to,
    (async function* () {
      yield* lines;
    })(),
    saved,
  );
  const row = await findSandbox(to, 'default', sandbox);
  assert.equal(row?.status, 'paused');
  assert.equal(row?.auto_resume, true);
  assert.deepEqual(row?.metadata, { app: 'old ü' });
});
