/** A backup of a Thaw that works, into an empty folder: what was paused goes on where it was, and nothing is lost silently. */
import assert from 'node:assert/strict';
import { copyFile, mkdir, open, readdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Sandbox } from '@thaw/api';
import { startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const FILL = `head -c 4000000 /dev/urandom > /dev/shm/file; md5sum /dev/shm/file > /dev/shm/sum
  head -c 2000000 /dev/urandom > /root/file; md5sum /root/file > /root/sum; sync
  (i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count.new; mv /dev/shm/count.new /dev/shm/count; sleep 0.1; done) \\
    </dev/null >/dev/null 2>&1 &`;
const VERIFY = 'md5sum -c --quiet /dev/shm/sum /root/sum && cat /dev/shm/count';

describe('backup and restore', () => {
  let thaw: TestThaw;
  let place: string;
  let file: string;
  let paused: Sandbox;
  let running: Sandbox;
  let fresh: Sandbox;
  let key: string;
  before(async () => {
    thaw = await startThaw();
    place = path.join(path.dirname(thaw.data), 'backups');
    await mkdir(place);
    file = path.join(place, 'one.thaw');
    [paused, running, fresh] = [
      await thaw.sdk.sandboxes.create({ metadata: { name: 'paused' } }),
      await thaw.sdk.sandboxes.create({ metadata: { name: 'running' } }),
      await thaw.sdk.sandboxes.create({ metadata: { name: 'fresh' } }),
    ];
    for (const { id } of [paused, running]) await thaw.sh(id, FILL);
    paused = await thaw.sdk.sandboxes.pause(paused.id);
    running = await thaw.sdk.sandboxes.pause(running.id);
    await thaw.sdk.sandboxes.resume(running.id);
    await thaw.sdk.snapshots.create(running.id, { name: 'ready' });
    await thaw.sh(running.id, 'echo later > /root/later; sync');
    key = (await thaw.sdk.keys.create({ name: 'limited', quota: { sandboxes: 1 } })).key;
  });
  after(() => thaw?.stop());

  const kept = () => readdir(thaw.data).then((names) => names.filter((name) => name.startsWith('.')));
  const empty = async () => {
    for (const name of await readdir(thaw.data))
      await rm(path.join(thaw.data, name), { recursive: true, force: true });
  };

  it('is made while Thaw works, and overwrites nothing', async () => {
    const made = await thaw.cli(['backup', '--json', file]);
    assert.equal(made.code, 0, made.stderr);
    const told = JSON.parse(made.stdout);
    const saved = (id: string, isRunning: boolean) => ({ id, running: isRunning });
    const byId = (a: { id: string }, b: { id: string }) => a.id.localeCompare(b.id);
    assert.deepEqual(
      told.sandboxes.toSorted(byId),
      [saved(paused.id, false), saved(running.id, true)].toSorted(byId),
    );
    assert.deepEqual(
      told.left_out.map(({ id }: { id: string }) => id),
      [fresh.id],
    );
    assert.deepEqual(told.templates.toSorted(), ['base', 'minimal', await idOf('ready')].toSorted());
    // Disks are 4 GiB each: holes are not stored.
    assert.ok((await stat(file)).size < 2 * 2 ** 30, `${(await stat(file)).size} bytes`);
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    assert.deepEqual(await kept(), []);
    const again = await thaw.cli(['backup', file]);
    assert.equal(again.code, 1);
    assert.match(again.stderr, /exists/);
    assert.deepEqual(await readdir(place), ['one.thaw']);
    assert.match(await thaw.sh(running.id, VERIFY), /^\d+$/m);
  });

  it('comes back into an empty folder only, whole or not at all', async () => {
    const harmed = path.join(place, 'harmed.thaw');
    await copyFile(file, harmed);
    await flip(harmed, (await stat(harmed)).size >> 1);
    await thaw.restart(async () => {
      // Also made of a Thaw that is stopped.
      const made = await thaw.cli(['backup', path.join(place, 'two.thaw')]);
      assert.equal(made.code, 0, made.stderr);
      assert.match(made.stdout, /2 sandboxes/);
      assert.match(
        made.stderr,
        new RegExp(`not in the backup: sandbox ${fresh.id}: it has never been paused`),
      );
      const full = await thaw.cli(['restore', file]);
      assert.equal(full.code, 1);
      assert.match(full.stderr, /not empty/);
    });
    await thaw.destroyAll();
    await thaw.restart(async () => {
      await empty();
      const refused = await thaw.cli(['restore', harmed]);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /does not match its checksum/);
      assert.deepEqual(await readdir(thaw.data), []);
      const restored = await thaw.cli(['restore', file]);
      assert.equal(restored.code, 0, restored.stderr);
      assert.match(restored.stdout, /2 sandboxes and 3 templates/);
      assert.deepEqual(await kept(), []);
    });
  });

  it('lets what was paused go on, and what ran from its last build', async () => {
    const { sandboxes } = thaw.sdk;
    const found = await sandboxes.get(paused.id);
    assert.equal(found.status, 'paused');
    assert.deepEqual(found.metadata, { name: 'paused' });
    assert.equal(found.build?.id, paused.build?.id);
    await sandboxes.resume(paused.id);
    const count = async (id: string) => Number(await thaw.sh(id, VERIFY));
    const first = await count(paused.id);
    assert.ok(first > 0);
    await thaw.sh(paused.id, `while test "$(cat /dev/shm/count)" = ${first}; do sleep 0.1; done`);

    const ran = await sandboxes.get(running.id);
    assert.equal(ran.status, 'error');
    assert.match(ran.error_reason ?? '', /running when it was backed up; resume goes on from its last build/);
    await sandboxes.resume(running.id);
    assert.ok((await count(running.id)) > 0);
    await thaw.sh(running.id, 'test ! -e /root/later');
    assert.ok((await sandboxes.get(running.id)).rolled_back_to);
  });

  it('says what was lost, and keeps templates, keys and quotas', async () => {
    const { sandboxes } = thaw.sdk;
    const lost = await sandboxes.get(fresh.id);
    assert.equal(lost.status, 'error');
    assert.match(lost.error_reason ?? '', /holds no build/);
    const refused = await thaw.api('POST', `/v1/sandboxes/${fresh.id}/resume`);
    assert.ok(refused.status >= 400 && refused.status < 500, JSON.stringify(refused));
    await sandboxes.delete(fresh.id);
    const spawned = await thaw.cli(['sandbox', 'create', '--template', 'ready'], {
      env: { THAW_API_KEY: key },
    });
    assert.equal(spawned.code, 0, spawned.stderr);
    assert.match(await thaw.sh(spawned.stdout.trim(), VERIFY), /^\d+$/m);
    const second = await thaw.cli(['sandbox', 'create'], { env: { THAW_API_KEY: key } });
    assert.equal(second.code, 1);
    assert.match(second.stderr, /quota of key limited is used up: sandboxes: the most is 1/);
  });

  async function idOf(name: string): Promise<string> {
    for await (const template of thaw.sdk.snapshots.list()) if (template.name === name) return template.id;
    throw new Error(`no template ${name}`);
  }
});

async function flip(file: string, at: number): Promise<void> {
  await using handle = await open(file, 'r+');
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, at);
  byte[0]! ^= 1;
  await handle.write(byte, 0, 1, at);
}
