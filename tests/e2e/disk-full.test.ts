/** A file system that is full while a sandbox is sealed: the sandbox runs on, and the next pause has everything. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, rm, statfs } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { assertNothingStray } from './builds.ts';
import { Checksummer } from './checksummer.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const MIB = 2 ** 20;
const DATA_MB = 3072;
/** Less than the memory that the guest changes, and enough for the database. */
const LEFT_MB = 24;
const CHANGED_MB = 96;
const seed = process.env.THAW_TEST_SEED ?? randomBytes(4).toString('hex');

describe('a full disk', () => {
  let thaw: TestThaw;
  before(async () => {
    thaw = await startThaw({ dataMb: DATA_MB, env: { THAW_DISK_RESERVE_MB: '0', THAW_SLOT_POOL: '1' } });
  });
  after(() => thaw?.stop());

  /** Takes what is free but for `leftMb`, until it is disposed. */
  async function fill(leftMb: number): Promise<AsyncDisposable> {
    const file = path.join(thaw.data, 'ballast');
    const ballast = await open(file, 'w');
    const { bavail, bsize } = await statfs(thaw.data);
    const chunk = Buffer.alloc(4 * MIB, 1);
    for (let left = bavail * bsize - leftMb * MIB; left > 0; left -= chunk.length) {
      await ballast.write(chunk.subarray(0, Math.min(left, chunk.length)));
    }
    await ballast.sync();
    await ballast.close();
    return { [Symbol.asyncDispose]: () => rm(file) };
  }

  it(`while it is paused or snapshotted leaves a sandbox running (seed ${seed})`, async () => {
    const { id } = await thaw.sdk.sandboxes.create({ template: 'base' });
    const guest = await Checksummer.start(thaw, id, { seed, pages: 1024, blocks: 512 });
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    const verbs = {
      pause: () => thaw.sdk.sandboxes.pause(id),
      snapshot: () => thaw.sdk.snapshots.create(id, { name: 'frozen' }),
    };
    for (const [name, verb] of Object.entries(verbs)) {
      await thaw.sh(
        id,
        `head -c ${CHANGED_MB * MIB} /dev/urandom > /dev/shm/much; md5sum /dev/shm/much > /dev/shm/sum`,
      );
      await guest.go();
      {
        await using _ballast = await fill(LEFT_MB);
        await assert.rejects(verb(), (error: { status?: number; message: string }) => {
          assert.ok(error.status !== undefined && error.status >= 400, error.message);
          assert.doesNotMatch(error.message, /\//);
          return true;
        });
        await eventually(async () => {
          assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'running', name);
        });
        await guest.check(`after a ${name} on a full disk`);
        await assertNothingStray(thaw, name);
        await guest.go();
      }
      await thaw.sdk.sandboxes.pause(id);
      await thaw.sdk.sandboxes.resume(id);
      await thaw.sh(id, 'md5sum -c --quiet /dev/shm/sum');
      await guest.check(`after the pause that followed a ${name}`);
      await assertNothingStray(thaw, name);
    }
  });
});
