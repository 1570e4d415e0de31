/**
 * Each step of the start and the end of a VM, of the removal of sandboxes and templates, and of the host agent's own
 * start is made to fail once: nothing is left, and the sandbox is what it was before, or gone.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, afterEach, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { assertNothingStray } from './builds.ts';
import {
  allSteps,
  FAULTS,
  faultHappened,
  missedSteps,
  NOT_OF_A_SEAL,
  OF_A_PLACE,
  OF_A_SPARE,
  setFault,
} from './faults.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { fullTraces } from './places.ts';
import type { Traces } from './traces.ts';

await ownHost(import.meta.filename);

const SLOTS = 2;
const TEMPLATE = 'ready';
/** Builds that a failed removal leaves are swept after this. */
const GRACE_SEC = 1;
const WRITE = 'echo here | tee /root/file > /dev/shm/file; sync';
const READ = 'cat /root/file /dev/shm/file';
const WRITTEN = 'here\nhere\n';

/** One call of the host agent itself, for what no route asks of it. */
async function askAgent(thaw: TestThaw, method: string, body: object): Promise<void> {
  const request = http.request({
    socketPath: path.join(thaw.run, 'agent.sock'),
    method: 'POST',
    path: `/hostagent.v1.HostAgentService/${method}`,
    headers: { 'Content-Type': 'application/json' },
  });
  request.end(JSON.stringify(body));
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  const answer = await text(response);
  assert.equal(response.statusCode, 200, answer);
}

describe('a step that fails once', () => {
  let thaw: TestThaw;
  let idle: Traces;
  const hit = new Set<string>();
  before(async () => {
    thaw = await startThaw({
      env: {
        ...FAULTS,
        THAW_SLOT_POOL: String(SLOTS),
        THAW_RECONCILE_MS: '300',
        THAW_BUILD_GRACE_SEC: String(GRACE_SEC),
      },
    });
    idle = await fullTraces(thaw, SLOTS);
    const { id } = await thaw.sdk.sandboxes.create();
    await thaw.sh(id, WRITE);
    await thaw.sdk.snapshots.create(id, { name: TEMPLATE });
    await thaw.sdk.sandboxes.delete(id);
  });
  afterEach(async () => {
    await thaw.destroyAll();
    await assertIdle();
    await eventually(() => assertNothingStray(thaw));
  });
  after(() => thaw?.stop());

  const { create, pause, resume, get, destroy } = {
    create: () => thaw.sdk.sandboxes.create({ template: TEMPLATE }),
    pause: (id: string) => thaw.sdk.sandboxes.pause(id),
    resume: (id: string) => thaw.sdk.sandboxes.resume(id),
    get: (id: string) => thaw.sdk.sandboxes.get(id),
    destroy: (id: string) => thaw.sdk.sandboxes.delete(id),
  };

  async function assertIdle(message?: string): Promise<void> {
    assert.deepEqual(await thaw.settledTraces((now) => isDeepStrictEqual(now, idle)), idle, message);
  }

  /** The verb is refused in words that tell nothing of this machine. */
  async function failAt(labels: string | readonly string[], verb: () => Promise<unknown>): Promise<void> {
    await setFault(thaw, labels);
    const [result] = await Promise.allSettled([verb()]);
    assert.ok(await faultHappened(thaw), `${labels} was not reached`);
    for (const label of [labels].flat()) hit.add(label);
    assert.equal(result?.status, 'rejected', `${labels}`);
    assert.equal(result.reason.status, 500, `${labels}`);
    assert.doesNotMatch(result.reason.message, /\/|fault|fail at/);
  }

  /** The steps that the verb has taken, as its answer tells them. */
  function taken(answer: { timings_ms?: Record<string, number> | undefined }, verb: string): string[] {
    const labels = Object.keys(answer.timings_ms ?? {}).filter((label) => label.startsWith(`${verb}:`));
    assert.ok(labels.length > 3, JSON.stringify(answer));
    return labels;
  }

  it('of a create leaves nothing', async () => {
    const first = await create();
    const labels = [...taken(first, 'create'), 'network:open-egress'];
    await destroy(first.id);
    const undo = ['remove-head', 'remove-files', 'unname-builds', 'remove-builds'];
    const pairs = undo.map((name) => ['create:init', `create:${name}`]);
    for (const failing of [...labels, ...pairs]) {
      await failAt(failing, create);
      await assertIdle(`${failing}`);
      await eventually(async () => {
        assert.deepEqual(await Array.fromAsync(thaw.sdk.sandboxes.list()), [], `${failing}`);
        await assertNothingStray(thaw, `${failing}`);
      });
    }
  });

  it('of a resume leaves the sandbox paused, also for the next host agent', async () => {
    const { id } = await create();
    await pause(id);
    const labels = [...taken(await resume(id), 'resume'), 'network:open-egress'];
    await pause(id);
    for (const label of labels) {
      await failAt(label, () => resume(id));
      assert.equal((await get(id)).status, 'paused', label);
      await assertIdle(label);
      await assertNothingStray(thaw, label);
    }
    await thaw.restart();
    assert.equal((await get(id)).status, 'paused');
    await resume(id);
    assert.equal(await thaw.sh(id, READ), WRITTEN);
  });

  it('of a destroy is made good', async () => {
    for (const name of ['end', 'remove-head', 'remove-files', 'unname-builds', 'remove-builds']) {
      const { id } = await create();
      await pause(id);
      if (name === 'end') await resume(id);
      await failAt(`destroy:${name}`, () => destroy(id));
      await eventually(async () => assert.equal((await get(id)).status, 'stopped', name));
      await assertIdle(name);
      await eventually(() => assertNothingStray(thaw, name));
    }
  });

  it('of the removal of a template leaves it, or removes it', async () => {
    for (const name of ['remove-head', 'unname-builds', 'remove-builds']) {
      const { id } = await create();
      await thaw.sdk.snapshots.create(id, { name: 'short-lived' });
      await destroy(id);
      await failAt(`delete:${name}`, () => thaw.sdk.snapshots.delete('short-lived'));
      await thaw.sdk.snapshots.delete('short-lived').catch(() => {});
      const names = (await Array.fromAsync(thaw.sdk.snapshots.list('snapshot'))).map((found) => found.name);
      assert.deepEqual(names, [TEMPLATE], name);
      await eventually(() => assertNothingStray(thaw, name));
    }
  });

  it('of the first commit of a template leaves no template', async () => {
    const { id } = await create();
    for (const name of ['write-head', 'commit-head', 'fsync-head']) {
      await failAt(`template:${name}`, () => thaw.sdk.snapshots.create(id, { name: 'never' }));
      assert.equal((await get(id)).status, 'running');
      assert.equal(await thaw.sh(id, READ), WRITTEN);
      await assertNothingStray(thaw, name);
    }
  });

  it('of the hand-over to a new build leaves one to go back to that never changes', async () => {
    const mark = (id: string, word: string) =>
      thaw.sh(id, `echo ${word} | tee /root/file > /dev/shm/file; sync`);
    for (const name of ['rebase-memory', 'rebase-disk', 'rebase-machine']) {
      const { id } = await create();
      await pause(id);
      await resume(id);
      await mark(id, 'frozen');
      await failAt(`snapshot:${name}`, () => thaw.sdk.snapshots.create(id, { name: 'never' }));
      await mark(id, 'later');
      const { pids } = await thaw.sdk.sandboxes.stats(id);
      process.kill(pids.vmm!, 'SIGKILL');
      await eventually(async () => assert.equal((await get(id)).status, 'error', name));
      await resume(id);
      // A VM that stands on the new build goes back to that one.
      const expected = name === 'rebase-machine' ? 'frozen' : 'here';
      assert.equal(await thaw.sh(id, READ), `${expected}\n${expected}\n`, name);
      await destroy(id);
    }
  });

  it('of a head that then cannot be put back either ends the VM, and the build is what it was', async () => {
    for (const verb of ['pause', 'snapshot'] as const) {
      const { id } = await create();
      await pause(id);
      await resume(id);
      await thaw.sh(id, 'echo sealed | tee /root/file > /dev/shm/file; sync');
      await setFault(thaw, [`${verb}:fsync-head`, `${verb}:restore-head`]);
      const seal = verb === 'pause' ? pause(id) : thaw.sdk.snapshots.create(id, { name: 'never' });
      await assert.rejects(seal, verb);
      assert.ok(await faultHappened(thaw), verb);
      hit.add(`${verb}:restore-head`);
      await eventually(async () => assert.equal((await get(id)).status, 'error', verb));
      await resume(id);
      assert.equal(await thaw.sh(id, READ), 'sealed\nsealed\n', verb);
      await destroy(id);
      await eventually(() => assertNothingStray(thaw, verb));
    }
  });

  it('of the network is made good by the next slot', async () => {
    for (const label of ['network:build-slot', 'network:admit-slot']) {
      await setFault(thaw, label);
      const { id } = await create();
      await eventually(async () => assert.ok(await faultHappened(thaw), label));
      hit.add(label);
      await destroy(id);
      await assertIdle(label);
    }
  });

  it('of a change of what a guest may reach is made good when it is asked for again', async () => {
    const { id } = await create();
    for (const label of ['network:set-egress', 'network:write-record']) {
      await setFault(thaw, label);
      const body = { sandboxId: id, network: { internet: false, denyOut: ['192.0.2.1'] } };
      await assert.rejects(askAgent(thaw, 'SetNetwork', body), label);
      assert.ok(await faultHappened(thaw), label);
      hit.add(label);
      await askAgent(thaw, 'SetNetwork', body);
      assert.equal((await get(id)).status, 'running');
    }
    await pause(id);
    await resume(id);
    assert.equal(await thaw.sh(id, READ), WRITTEN);
  });

  it('when a VM is lost does not keep its sandbox from an error', async () => {
    const { id } = await create();
    await pause(id);
    await resume(id);
    await setFault(thaw, 'watch:write-record');
    const { pids } = await thaw.sdk.sandboxes.stats(id);
    process.kill(pids.vmm!, 'SIGKILL');
    await eventually(async () => assert.equal((await get(id)).status, 'error'));
    await eventually(async () => assert.ok(await faultHappened(thaw)));
    hit.add('watch:write-record');
    await assertIdle();
    await thaw.restart();
    assert.equal((await get(id)).status, 'error');
    await resume(id);
    assert.equal(await thaw.sh(id, READ), WRITTEN);
  });

  it('of a sweep is made good by the next one', async () => {
    for (const name of ['unname-build', 'remove-build']) {
      const { id } = await create();
      await pause(id);
      await setFault(thaw, ['destroy:unname-builds', `collect:${name}`]);
      await assert.rejects(destroy(id));
      await eventually(async () => assert.ok(await faultHappened(thaw), name));
      hit.add(`collect:${name}`);
      await eventually(() => assertNothingStray(thaw, name));
    }
  });

  it('of an import is made good by the next start', async () => {
    await rm(path.join(thaw.data, 'templates/minimal'), { recursive: true });
    await setFault(thaw, 'import:take-image');
    await assert.rejects(thaw.restart(), /did not start/);
    assert.ok(await faultHappened(thaw));
    hit.add('import:take-image');
    await thaw.start();
    await destroy((await thaw.sdk.sandboxes.create()).id);
  });

  it('leaves out no step that the sources have', async () => {
    const isOwn = (step: string) =>
      NOT_OF_A_SEAL.test(step) && !OF_A_SPARE.test(step) && !OF_A_PLACE.test(step);
    const own = [...(await allSteps())].filter(isOwn);
    assert.deepEqual(missedSteps(own, hit), []);
  });
});
