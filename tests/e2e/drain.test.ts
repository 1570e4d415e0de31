/** `thaw up --drain`: when it stops, every sandbox is paused with all it had. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { fullTraces } from './places.ts';
import type { Traces } from './traces.ts';

await ownHost(import.meta.filename);

const SLOTS = 1;

describe('thaw up --drain', () => {
  let thaw: TestThaw;
  let idle: Traces;
  before(async () => {
    thaw = await startThaw({ flags: ['--drain'], env: { THAW_SLOT_POOL: String(SLOTS) } });
    idle = await fullTraces(thaw, SLOTS);
  });
  after(() => thaw?.stop());

  it('pauses what runs, also what is at work, and leaves no process', async () => {
    let { sandboxes } = thaw.sdk;
    const ids: string[] = [];
    for (let n = 0; n < 4; n++) {
      const { id } = await sandboxes.create();
      await thaw.sh(id, `echo ${id} | tee /root/file > /dev/shm/file; sync`);
      ids.push(id);
    }
    await sandboxes.pause(ids[0]!);
    const atWork = thaw.sdk.snapshots.create(ids[1]!, { name: 'ready' }).catch(() => {});
    await thaw.restart();
    ({ sandboxes } = thaw.sdk);
    await atWork;
    assert.doesNotMatch(thaw.log(1000), /can't be paused/);
    for (const id of ids)
      await eventually(async () => assert.equal((await sandboxes.get(id)).status, 'paused'));
    assert.deepEqual(await thaw.settledTraces((now) => isDeepStrictEqual(now, idle)), idle);
    for (const id of ids) {
      await sandboxes.resume(id);
      assert.equal(await thaw.sh(id, 'cat /root/file /dev/shm/file'), `${id}\n${id}\n`);
    }
  });
});
