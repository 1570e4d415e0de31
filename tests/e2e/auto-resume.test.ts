/** Paused sandboxes that wake for whoever comes, and verbs whose clients do not wait for them. */
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

describe('a paused sandbox', () => {
  let thaw: TestThaw;
  before(async () => {
    thaw = await startThaw({ env: { THAW_RECONCILE_MS: '500' } });
  });
  after(() => thaw?.stop());

  const status = async (id: string) => (await thaw.sdk.sandboxes.get(id)).status;

  it('wakes once for all who come at once, for a file, and for a stream', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ timeout_sec: 0 });
    await thaw.sh(id, 'echo 7 > /dev/shm/number');
    await thaw.sdk.sandboxes.pause(id);
    const answers = await Promise.all(
      [...Array(6)].map((_, n) => thaw.sh(id, `echo ${n} $(cat /dev/shm/number)`)),
    );
    assert.deepEqual(
      answers,
      [...Array(6)].map((_, n) => `${n} 7\n`),
    );
    const { body: events } = await thaw.api<{ verb: string }[]>('GET', `/v1/sandboxes/${id}/events`);
    assert.equal(events.filter(({ verb }) => verb === 'resume').length, 1);

    await thaw.sdk.sandboxes.pause(id);
    const file = await thaw.sdk.sandboxes.readFile(id, '/dev/shm/number');
    assert.equal(await text(file), '7\n');
    await thaw.sdk.sandboxes.pause(id);
    const stream = thaw.sdk.sandboxes.execStream(id, { cmd: 'cat', args: ['/dev/shm/number'] });
    for await (const message of stream) assert.ok(message);
    assert.equal(await status(id), 'running');
    await thaw.sdk.sandboxes.delete(id);
  });

  it('stays paused where it was told to', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ timeout_sec: 0, auto_resume: false });
    await thaw.sdk.sandboxes.pause(id);
    const refused = await thaw.api('POST', `/v1/sandboxes/${id}/exec`, { cmd: 'true' });
    assert.deepEqual([refused.status, refused.body.error.code], [409, 'invalid_state']);
    assert.equal(await status(id), 'paused');
    await thaw.sdk.sandboxes.update(id, { auto_resume: true });
    assert.equal(await thaw.sh(id, 'echo awake'), 'awake\n');
    await thaw.sdk.sandboxes.delete(id);
  });

  it('ends what was begun for clients that went away', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ timeout_sec: 0 });
    await thaw.sh(id, 'echo kept > /dev/shm/kept');
    for (const [round, leave_ms] of [0, 3, 10, 30, 80, 200].entries()) {
      const verb = ['pause', 'resume', 'snapshot'][round % 3]!;
      const [path, body] =
        verb === 'snapshot'
          ? ['/v1/snapshots', { sandbox_id: id, name: `gone-${round}` }]
          : [`/v1/sandboxes/${id}/${verb}`, {}];
      const asked = request(thaw.url + path, {
        method: 'POST',
        agent: false,
        headers: { 'X-API-Key': thaw.key, 'Content-Type': 'application/json' },
      });
      const closed = new Promise((resolve) => asked.once('close', resolve));
      asked.once('response', (answer) => answer.resume());
      asked.on('error', () => {}).end(JSON.stringify(body));
      setTimeout(() => asked.destroy(), leave_ms);
      await closed;
      // Whether it was read before its client left nobody knows; in either case it ends in a resting state.
      await eventually(async () => assert.match(await status(id), /^(running|paused)$/), 60_000);
    }
    assert.equal(await thaw.sh(id, 'cat /dev/shm/kept'), 'kept\n');
    for await (const { name, type } of thaw.sdk.snapshots.list()) {
      if (type === 'snapshot') await thaw.sdk.snapshots.delete(name);
    }
    await thaw.sdk.sandboxes.delete(id);
  });
});
