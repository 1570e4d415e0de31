/** Damaged builds: a clear refusal, nothing lost, nothing left behind, and all is well once the file is repaired. */
import assert from 'node:assert/strict';
import { readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { SANDBOX_STATUSES } from '@thaw/api';
import { parseManifest, serialiseManifest } from '@thaw/snapshot';
import { run } from '../../packages/host-agent/src/os/run.ts';
import { headOf } from './builds.ts';
import { startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { fullTraces } from './places.ts';
import type { Traces } from './traces.ts';

await ownHost(import.meta.filename);

const SLOTS = 2;
const PREPARE = `head -c 8000000 /dev/urandom > /dev/shm/file; md5sum /dev/shm/file > /dev/shm/sum
  sleep 100000 </dev/null >/dev/null 2>&1 & echo $! > /dev/shm/pid
  head -c 2000000 /dev/urandom > /root/file; md5sum /root/file > /root/sum; sync`;
const VERIFY = 'kill -0 $(cat /dev/shm/pid) && md5sum -c --quiet /dev/shm/sum /root/sum';

interface Damage {
  name: string;
  file: string;
  /** Given the file; the test puts it back as it was. */
  harm: (file: string) => Promise<void>;
  status: number;
  code: string;
  message: RegExp;
}

const internal = { status: 500, code: 'internal' };
const lost = (file: string) => rm(file);
const cut = (bytes: number) => (file: string) => truncate(file, bytes);
async function flip(file: string): Promise<void> {
  const bytes = await readFile(file);
  bytes[bytes.length >> 1]! ^= 1;
  await writeFile(file, bytes);
}
/** The manifest of a build that another version had written, as that would have written it. */
const written = (change: { vmm_version?: string; cpu_model?: string }) => async (file: string) => {
  const manifest = parseManifest(await readFile(file, 'utf8'));
  assert.ok(manifest.machine);
  await writeFile(file, serialiseManifest({ ...manifest, machine: { ...manifest.machine, ...change } }));
};

const DAMAGES: Damage[] = [
  {
    name: 'a truncated memory header',
    file: 'memfile.header',
    harm: cut(100),
    ...internal,
    message: /memory header/,
  },
  { name: 'an empty disk header', file: 'rootfs.header', harm: cut(0), ...internal, message: /disk header/ },
  {
    name: 'a changed memory header',
    file: 'memfile.header',
    harm: flip,
    ...internal,
    message: /memory header.*checksum/,
  },
  { name: 'a missing memory diff', file: 'memfile', harm: lost, ...internal, message: /memory is missing/ },
  { name: 'a missing disk diff', file: 'rootfs', harm: lost, ...internal, message: /disk is missing/ },
  {
    name: 'a truncated memory diff',
    file: 'memfile',
    harm: cut(4096),
    ...internal,
    message: /memory has 4096 bytes/,
  },
  { name: 'a wrong checksum', file: 'vmstate', harm: flip, ...internal, message: /vmstate does not match/ },
  { name: 'a missing manifest', file: 'manifest.json', harm: lost, ...internal, message: /not on this host/ },
  { name: 'a changed manifest', file: 'manifest.json', harm: flip, ...internal, message: /manifest/ },
  {
    name: 'a snapshot of another VMM version',
    file: 'manifest.json',
    harm: written({ vmm_version: '99.1.0' }),
    status: 409,
    code: 'invalid_state',
    message: /99\.1/,
  },
  {
    name: 'a snapshot of another CPU model',
    file: 'manifest.json',
    harm: written({ cpu_model: 'Other' }),
    status: 409,
    code: 'invalid_state',
    message: /Other/,
  },
];

describe('a build with', () => {
  let thaw: TestThaw;
  let idle: Traces;
  let id: string;
  before(async () => {
    // The list of templates is looked through when a test asks for it.
    thaw = await startThaw({ env: { THAW_SLOT_POOL: String(SLOTS), THAW_RECONCILE_MS: '600000' } });
    idle = await fullTraces(thaw, SLOTS);
    id = (await thaw.sdk.sandboxes.create()).id;
    await thaw.sh(id, PREPARE);
    // Two generations: what is read lies in both.
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.snapshots.create(id, { name: 'frozen' });
  });
  after(() => thaw?.stop());

  async function assertIdle(): Promise<void> {
    const same = (now: Traces) => isDeepStrictEqual(now, idle);
    assert.deepEqual(await thaw.settledTraces(same), idle);
  }

  async function rows(): Promise<string[]> {
    const found = await Array.fromAsync(thaw.sdk.sandboxes.list({ status: [...SANDBOX_STATUSES] }));
    return found.map((sandbox) => `${sandbox.id} ${sandbox.status}`);
  }

  /** Harms the file, calls `judge`, repairs it. A disk is sparse and larger than what fits in memory. */
  async function whileHarmed(file: string, harm: Damage['harm'], judge: () => Promise<void>): Promise<void> {
    const whole = `${file}.whole`;
    await run(['cp', '--preserve', '--sparse=always', file, whole]);
    try {
      await harm(file);
      await judge();
    } finally {
      await rename(whole, file);
    }
  }

  for (const { name, file, harm, ...expected } of DAMAGES) {
    it(`${name} is refused, and usable once repaired`, async () => {
      const before = await rows();
      const harmed = path.join(thaw.data, 'builds', await headOf(thaw, 'sandboxes', id), file);
      await whileHarmed(harmed, harm, async () => {
        for (const [where, wish] of [
          [`/v1/sandboxes/${id}/resume`, undefined],
          ['/v1/sandboxes', { template: 'frozen' }],
        ] as const) {
          const { status, body } = await thaw.api('POST', where, wish);
          assert.deepEqual(
            [status, body.error?.code],
            [expected.status, expected.code],
            JSON.stringify(body),
          );
          assert.match(body.error.message, expected.message);
          assert.doesNotMatch(body.error.message, /\/tmp|\/builds|ENOENT/);
        }
        assert.deepEqual(await rows(), before);
        await assertIdle();
      });
      await thaw.sdk.sandboxes.resume(id);
      await thaw.sh(id, VERIFY);
      const spawn = await thaw.sdk.sandboxes.create({ template: 'frozen' });
      await thaw.sh(spawn, VERIFY);
      await thaw.sdk.sandboxes.delete(spawn.id);
      await thaw.sdk.sandboxes.pause(id);
      await thaw.sdk.snapshots.create(id, { name: 'frozen', overwrite: true });
      await assertIdle();
    });
  }

  it('a lost diff of an older generation is refused too', async () => {
    const head = await headOf(thaw, 'sandboxes', id);
    const manifest = parseManifest(
      await readFile(path.join(thaw.data, 'builds', head, 'manifest.json'), 'utf8'),
    );
    const parent = path.join(thaw.data, 'builds', manifest.memory!.parent!, 'memfile');
    await whileHarmed(parent, lost, async () => {
      const { status, body } = await thaw.api('POST', `/v1/sandboxes/${id}/resume`);
      assert.deepEqual([status, body.error.code], [500, 'internal']);
      assert.match(body.error.message, /memory is missing/);
      assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'paused');
      await assertIdle();
    });
  });

  it('a damaged head is refused', async () => {
    const head = path.join(thaw.data, 'sandboxes', id, 'head');
    await whileHarmed(head, cut(20), async () => {
      const { status, body } = await thaw.api('POST', `/v1/sandboxes/${id}/resume`);
      assert.deepEqual([status, body.error.code], [500, 'internal']);
      assert.match(body.error.message, /head of sandbox/);
      assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'paused');
    });
  });

  it('damage that is there when Thaw starts loses nothing, and can be destroyed', async () => {
    const harmed = path.join(thaw.data, 'builds', await headOf(thaw, 'sandboxes', id), 'memfile.header');
    await whileHarmed(harmed, cut(64), async () => {
      await thaw.restart();
      const { status, body } = await thaw.api('POST', `/v1/sandboxes/${id}/resume`);
      assert.deepEqual([status, body.error.code], [500, 'internal']);
      assert.match((await thaw.sdk.sandboxes.get(id)).status, /^(paused|error)$/);
    });
    await thaw.sdk.sandboxes.resume(id);
    await thaw.sh(id, VERIFY);
    await thaw.sdk.sandboxes.pause(id);
    await whileHarmed(path.join(thaw.data, 'sandboxes', id, 'head'), cut(5), async () => {
      await thaw.sdk.sandboxes.delete(id);
      assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'stopped');
    }).catch((error: NodeJS.ErrnoException) => {
      // Its folder is gone: there is nothing to repair.
      if (error.code !== 'ENOENT') throw error;
    });
    await assertIdle();
  });
});
