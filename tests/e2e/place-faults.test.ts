/** Starts in places that were made ahead, and the making of those, fail or die at each of their steps: nothing stays behind. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { FAULTS, faultHappened, setFault } from './faults.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { assertSame, fullTraces, placesReady, tookPlace, withoutVmms } from './places.ts';
import type { Traces } from './traces.ts';

await ownHost(import.meta.filename);

const SLOTS = 1;
const MEMORY_MB = 256;
/** Of making a place, in its order. */
const MAKING = [
  'take-slot',
  'set-egress',
  'make-cgroup',
  'start-keeper',
  'enter-cgroup',
  'prepare-place',
  'start-ahead',
];
/** Of a resume that takes one. */
const STARTING = ['write-record', 'limit-cgroup', 'start-vm', 'init', 'open-egress', 'write-machine'];

describe('a place that was made ahead', () => {
  let thaw: TestThaw;
  let idle: Traces;
  before(async () => {
    const env = {
      ...FAULTS,
      THAW_PLACES: '2',
      THAW_SLOT_POOL: String(SLOTS),
      THAW_BUILD_GRACE_SEC: '1',
      THAW_RECONCILE_MS: '300',
    };
    thaw = await startThaw({ env });
    idle = withoutVmms(await fullTraces(thaw, SLOTS));
  });
  after(() => thaw?.stop());

  const create = () => thaw.sdk.sandboxes.create({ memory_mb: MEMORY_MB });
  const assertIdle = (message: string) => assertSame(thaw, idle, message);

  it('whose start fails at any step is given back, and one that can not be made is missing', async () => {
    const { id } = await create();
    await thaw.sdk.sandboxes.pause(id);
    for (const name of STARTING) {
      await placesReady(thaw);
      await setFault(thaw, `resume:${name}`);
      await assert.rejects(thaw.sdk.sandboxes.resume(id), { kind: 'internal' }, name);
      assert.ok(await faultHappened(thaw), name);
      assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'paused');
      await assertIdle(name);
    }
    for (const name of MAKING) {
      await setFault(thaw, `place:${name}`);
      // Both are taken; the first that is to follow can't be made, and for a while none is.
      await thaw.sdk.sandboxes.resume(id);
      await eventually(async () => assert.ok(await faultHappened(thaw), name), 10_000);
      await thaw.sdk.sandboxes.pause(id);
      const alone = await thaw.sdk.sandboxes.resume(id);
      assert.ok(tookPlace(alone), 'one was left');
      await thaw.sdk.sandboxes.pause(id);
      await assertIdle(name);
    }
    await thaw.destroyAll();
  });

  it('is replaced where the VMM that waited in it has died', async () => {
    const { id } = await create();
    await thaw.sh(id, 'echo kept > /dev/shm/kept');
    await thaw.sdk.sandboxes.pause(id);
    for (const name of ['write-record', 'limit-cgroup', 'start-vm']) {
      await placesReady(thaw);
      await setFault(thaw, `resume:${name}`, 'kill=vmm');
      await thaw.sdk.sandboxes.resume(id);
      assert.ok(await faultHappened(thaw), name);
      assert.equal(await thaw.sh(id, 'cat /dev/shm/kept'), 'kept\n', name);
      await thaw.sdk.sandboxes.pause(id);
      await assertIdle(name);
    }
    await thaw.destroyAll();
  });

  it('ends with a host agent that is killed at any step', async () => {
    const { id } = await create();
    await thaw.sh(id, 'echo kept > /dev/shm/kept');
    await thaw.sdk.sandboxes.pause(id);
    await assertIdle('paused');
    const killed = async (label: string, act: () => Promise<unknown>) => {
      await placesReady(thaw);
      const { agent } = await thaw.agentPids();
      await setFault(thaw, label, 'kill');
      await act();
      await eventually(async () => assert.ok(await faultHappened(thaw), label), 10_000);
      await eventually(async () => {
        assert.ok(![0, agent].includes((await thaw.agentPids()).agent), label);
        await thaw.sdk.ready();
      }, 60_000);
    };
    for (const name of MAKING)
      await killed(`place:${name}`, async () => {
        await thaw.sdk.sandboxes.resume(id).catch(() => {});
      }).then(async () => {
        await eventually(
          async () => assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'running'),
          30_000,
        );
        assert.equal(await thaw.sh(id, 'cat /dev/shm/kept'), 'kept\n', name);
        await thaw.sdk.sandboxes.pause(id);
        await assertIdle(name);
      });
    for (const name of STARTING) {
      await killed(`resume:${name}`, () => assert.rejects(thaw.sdk.sandboxes.resume(id)));
      await eventually(async () => assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'paused'), 30_000);
      await assertIdle(name);
      await thaw.sdk.sandboxes.resume(id);
      assert.equal(await thaw.sh(id, 'cat /dev/shm/kept'), 'kept\n', name);
      await thaw.sdk.sandboxes.pause(id);
    }
    await thaw.destroyAll();
    await assertIdle('destroyed');
  });
});
