import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { create } from '@bufbuild/protobuf';
import { OPEN_NETWORK, type SandboxStatus, ThawError } from '@thaw/api';
import { SandboxInfoSchema } from '@thaw/api/rpc';
import { findSandbox, moveSandbox } from '../sandbox/table.ts';
import { TestPlane, until } from '../testing.ts';
import { reconcile } from './loop.ts';
import { apply } from './settle.ts';
import { verdict } from './verdict.ts';

const info = (status: string) => create(SandboxInfoSchema, { sandboxId: 'x', status });

describe('the verdict on a row', () => {
  const row = (status: SandboxStatus, build_id: string | null = null) => ({
    status,
    build_id,
    network: OPEN_NETWORK,
    access_token: null,
  });

  it('follows a host that knows better', () => {
    for (const status of ['running', 'pausing', 'paused', 'resuming', 'snapshotting', 'error'] as const) {
      for (const host of ['running', 'paused', 'error']) {
        const kind = status === host ? 'keep' : 'follow';
        assert.equal(verdict(row(status), info(host)).kind, kind, `${status} ${host}`);
      }
    }
  });

  it('waits while the host is at work, or says what nobody understands', () => {
    for (const host of ['pending', 'pausing', 'resuming', 'snapshotting', 'stopping', 'levitating']) {
      assert.equal(verdict(row('running'), info(host)).kind, 'keep');
    }
  });

  it('never gives up a paused sandbox, nor one with a build', () => {
    assert.equal(verdict(row('paused'), undefined).kind, 'keep');
    assert.deepEqual(verdict(row('running'), undefined), { kind: 'become', status: 'stopped' });
    for (const lost of [row('running', 'b'), row('pausing'), row('resuming'), row('snapshotting', 'b')]) {
      const judged = verdict(lost, undefined);
      assert.equal(judged.kind === 'become' && judged.status, 'error');
    }
  });

  it('ends what was to end, and creates that were cut off', () => {
    assert.equal(verdict(row('stopping'), info('running')).kind, 'destroy');
    assert.equal(verdict(row('stopping'), undefined).kind, 'destroy');
    assert.equal(verdict(row('pending'), undefined).kind, 'destroy');
    assert.equal(verdict(row('pending'), info('running')).kind, 'destroy');
  });
});

describe('reconcile', () => {
  let test: TestPlane;
  before(async () => {
    test = await TestPlane.start();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const statusOf = async (id: string): Promise<string> => {
    const answer = await test.ask('GET', `/v1/sandboxes/${id}`);
    return answer.status === 404 ? 'gone' : answer.body.status;
  };
  const put = (id: string, status: SandboxStatus) =>
    moveSandbox(test.running.plane.db, id, ['running', 'paused'], { status });

  it('settles at the start what was cut off', async () => {
    const ids = await Promise.all(Array.from({ length: 6 }, () => test.createSandbox()));
    const [pausing, lost, stopping, died, resuming, pending] = ids as [
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    const cutOff = () =>
      test.withDatabase(async (db) => {
        const set = (id: string, status: SandboxStatus) => moveSandbox(db, id, ['running'], { status });
        await set(pausing, 'pausing');
        await set(stopping, 'stopping');
        await set(resuming, 'resuming');
        await db
          .updateTable('sandboxes')
          .set({ status: 'pending', started_at: null })
          .where('id', '=', pending)
          .execute();
      });
    await test.restart(async () => {
      // The plane is closed: rows are written past it.
      await cutOff();
      test.agent.sandboxes.get(pausing)!.status = 'paused';
      test.agent.sandboxes.delete(lost);
      test.agent.sandboxes.delete(resuming);
      const dead = test.agent.sandboxes.get(died)!;
      dead.status = 'error';
      dead.errorReason = 'the VM exited';
    });
    const expected = ['paused', 'stopped', 'stopped', 'error', 'error', 'gone'];
    await until(async () => isDeepStrictEqual(await Promise.all(ids.map(statusOf)), expected));
    assert.equal(test.agent.sandboxes.has(stopping), false);
    assert.equal(test.agent.sandboxes.has(pending), false);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${died}`)).body.error_reason, 'the VM exited');
  });

  it('settles what the host could not be asked about at once', async () => {
    const id = await test.createSandbox();
    test.agent.failNext('pauseSandbox', new ThawError('timeout', 'too slow'));
    test.agent.failNext('listSandboxes', new ThawError('unavailable', 'restarting'));
    assert.equal((await test.ask('POST', `/v1/sandboxes/${id}/pause`)).status, 504);
    assert.equal(await statusOf(id), 'pausing');
    const other = await test.ask('POST', `/v1/sandboxes/${id}/resume`);
    assert.equal(other.status, 409);
    // The same verb waits for what becomes of the first; then it is its own turn.
    const again = test.ask('POST', `/v1/sandboxes/${id}/pause`);
    await reconcile(test.running.plane);
    assert.equal((await again).body.status, 'paused');
  });

  it('leaves a sandbox alone that moved since it looked', async () => {
    const id = await test.createSandbox();
    const { plane } = test.running;
    const seen = await findSandbox(plane.db, 'default', id);
    await put(id, 'pausing');
    await moveSandbox(plane.db, id, ['pausing'], { status: 'running' });
    assert.equal(await apply(plane, seen!, undefined), false);
    assert.equal(await statusOf(id), 'running');
    // While a verb is under way, no round touches its sandbox.
    const release = test.agent.hold('pauseSandbox');
    const pausing = test.ask('POST', `/v1/sandboxes/${id}/pause`);
    await until(() => plane.verbs.has(id));
    const info = test.agent.sandboxes.get(id)!;
    test.agent.sandboxes.delete(id);
    await reconcile(plane);
    assert.equal(await statusOf(id), 'pausing');
    test.agent.sandboxes.set(id, info);
    release();
    assert.equal((await pausing).body.status, 'paused');
  });

  it('finishes verbs before it shuts down', async () => {
    const id = await test.createSandbox();
    const release = test.agent.hold('pauseSandbox');
    const abort = new AbortController();
    const asked = fetch(`${test.url}/v1/sandboxes/${id}/pause`, {
      method: 'POST',
      headers: { 'X-API-Key': test.key },
      signal: abort.signal,
    }).catch(() => undefined);
    await until(() => test.agent.calls.at(-1) === 'pauseSandbox');
    abort.abort();
    await asked;
    setTimeout(release, 200);
    await test.restart();
    assert.equal(await statusOf(id), 'paused');
  });
});
