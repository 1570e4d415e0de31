/**
 * A paused sandbox and a template of the first format go on in this version. Their memory is too big to keep a copy of, so it
 * is made here and everything beside it is brought back into the form that the fixture has; a build's own files have the
 * fixture's format still.
 */
import assert from 'node:assert/strict';
import { mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { extractArchive, verifyArchive, writeArchive } from '../../packages/cli/src/backup/archive.ts';
import { startThaw, type TestThaw } from '../e2e/harness.ts';
import { ownHost } from '../e2e/own-host.ts';
import { bringBack } from './earlier.ts';

await ownHost(import.meta.filename);

const never = new AbortController().signal;
const FILL = `head -c 4000000 /dev/urandom > /dev/shm/file; md5sum /dev/shm/file > /dev/shm/sum
  head -c 2000000 /dev/urandom > /root/file; md5sum /root/file > /root/sum; sync
  sleep 100000 </dev/null >/dev/null 2>&1 & echo $! > /dev/shm/pid`;
const VERIFY = 'md5sum -c --quiet /dev/shm/sum /root/sum && kill -0 $(cat /dev/shm/pid)';

describe('a sandbox of the first format', () => {
  let thaw: TestThaw;
  let id: string;
  before(async () => {
    thaw = await startThaw();
    id = (await thaw.sdk.sandboxes.create({ metadata: { app: 'old' } })).id;
    await thaw.sh(id, FILL);
    await thaw.sdk.snapshots.create(id, { name: 'ready' });
    await thaw.sdk.sandboxes.pause(id);
  });
  after(() => thaw?.stop());

  it('is restored from a backup of that version, migrated and resumed', async () => {
    await thaw.restart(async () => {
      const place = path.join(path.dirname(thaw.data), 'place');
      const unpacked = path.join(place, 'unpacked');
      await mkdir(unpacked, { recursive: true });
      const [fresh, old] = [path.join(place, 'fresh'), path.join(place, 'old')];
      const made = await thaw.cli(['backup', fresh]);
      assert.equal(made.code, 0, made.stderr);
      await verifyArchive(fresh, never);
      await extractArchive(fresh, unpacked, never);
      await bringBack(unpacked);
      await writeArchive(old, unpacked, never);
      for (const name of await readdir(thaw.data))
        await rm(path.join(thaw.data, name), { recursive: true, force: true });
      const restored = await thaw.cli(['restore', old]);
      assert.equal(restored.code, 0, restored.stderr);
      await rm(place, { recursive: true });
    });
    const found = await thaw.sdk.sandboxes.get(id);
    assert.equal(found.status, 'paused');
    assert.deepEqual(found.metadata, { app: 'old' });
    await thaw.sdk.sandboxes.resume(id);
    await thaw.sh(id, VERIFY);
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    await thaw.sh(id, VERIFY);
  });

  it('has left a template that spawns', async () => {
    const spawned = await thaw.sdk.sandboxes.create({ template: 'ready' });
    await thaw.sh(spawned.id, VERIFY);
  });
});
