/** Sandboxes by the E2B API, over raw HTTP: what a client of it relies on, on a real VM. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

interface Made {
  sandboxID: string;
  envdAccessToken?: string;
}
interface Detail extends Made {
  state: string;
  pauseMode?: string;
  startedAt: string;
  endAt: string;
}

describe('the E2B API', () => {
  let thaw: TestThaw;
  before(async () => {
    thaw = await startThaw({ env: { THAW_DOMAIN: 'sbx.localhost:3443' } });
  });
  after(() => thaw.stop());

  const ask = async <T>(status: number, method: string, path: string, body?: unknown): Promise<T> => {
    const answer = await thaw.api<T>(method, path, body);
    assert.equal(answer.status, status, `${method} ${path}: ${JSON.stringify(answer.body)}\n${thaw.log()}`);
    return answer.body;
  };
  const bootId = (id: string) => thaw.sh(id, 'cat /proc/sys/kernel/random/boot_id');
  /** The guest agent's own answer, as the host's root gets it. */
  const agent = async (id: string, path: string, init: RequestInit = {}) => {
    const { host_ip } = await thaw.sdk.sandboxes.get(id);
    return await fetch(`http://${host_ip}:49983${path}`, init);
  };

  it('gives a sandbox whose agent asks for its token, and works as its default user', async () => {
    const made = await ask<Made>(201, 'POST', '/v2/sandboxes', {
      templateID: 'minimal',
      envVars: { GIVEN: 'value', E2B_SANDBOX_ID: 'forged' },
      metadata: { kind: 'e2e' },
    });
    const { sandboxID: id, envdAccessToken: token } = made;
    assert.ok(token);
    assert.equal((await agent(id, '/health')).status, 204);
    assert.equal((await agent(id, '/envs')).status, 401);
    const headers = { 'X-Access-Token': token, 'Content-Type': 'application/json' };
    const envs = (await (await agent(id, '/envs', { headers })).json()) as Record<string, string>;
    assert.equal(envs.GIVEN, 'value');
    assert.equal(envs.E2B_SANDBOX, 'true');
    assert.equal(envs.E2B_SANDBOX_ID, id);
    assert.equal(envs.E2B_TEMPLATE_ID, 'minimal');
    const folder = { method: 'POST', headers, body: '{"path":"made"}' };
    const entry = (await (await agent(id, '/filesystem.Filesystem/MakeDir', folder)).json()) as {
      entry: { path: string; owner: string };
    };
    assert.deepEqual([entry.entry.path, entry.entry.owner], ['/home/user/made', 'user']);
    // /v1 stays root's.
    assert.equal(await thaw.sh(id, 'id -un; pwd'), 'root\n/root\n');

    const [listed] = await ask<Detail[]>(200, 'GET', '/v2/sandboxes?metadata=kind%3De2e');
    assert.equal(listed?.sandboxID, id);
    const { startedAt, endAt } = await ask<Detail>(200, 'GET', `/sandboxes/${id}`);
    assert.equal(new Date(endAt).getTime() - new Date(startedAt).getTime(), 300_000);
    await ask(204, 'DELETE', `/sandboxes/${id}`);
    await ask(404, 'DELETE', `/sandboxes/${id}`);
  });

  it('leaves the agent of an old, insecure create open', async () => {
    const made = await ask<Made>(201, 'POST', '/sandboxes', { templateID: 'minimal' });
    assert.equal(made.envdAccessToken, undefined);
    assert.equal((await agent(made.sandboxID, '/envs')).status, 200);
    await ask(204, 'POST', `/sandboxes/${made.sandboxID}/timeout`, { timeout: 0 });
    await ask(404, 'GET', `/sandboxes/${made.sandboxID}`);
  });

  it('pauses with memory or with the disk alone, and goes on as the same sandbox', async () => {
    const made = await ask<Made>(201, 'POST', '/v2/sandboxes', { templateID: 'minimal', timeout: 600 });
    const id = made.sandboxID;
    const path = `/sandboxes/${id}`;
    const headers = { 'X-Access-Token': made.envdAccessToken! };
    const booted = await bootId(id);
    await thaw.sh(
      id,
      'echo kept > /root/file; echo run > /dev/shm/file; sleep 1000 > /dev/null 2>&1 & echo $! > /root/pid',
    );

    await ask(204, 'POST', `${path}/pause`, {});
    await ask(409, 'POST', `${path}/pause`, {});
    assert.equal((await ask<Detail>(200, 'GET', path)).pauseMode, 'full');
    assert.deepEqual(await ask(201, 'POST', `/v2${path}/connect`, {}), made);
    assert.equal(await bootId(id), booted);
    await thaw.sh(id, 'kill -0 $(cat /root/pid); test -e /dev/shm/file');
    assert.equal((await agent(id, '/envs', { headers })).status, 200);

    // Written a moment ago, and by no program that asked for it to be on disk.
    await thaw.sh(id, 'echo late > /root/late; seq 100000 > /root/many');
    await ask(204, 'POST', `${path}/pause`, { memory: false, requireHealthyGuest: true });
    const asleep = await ask<Detail>(200, 'GET', path);
    assert.deepEqual([asleep.state, asleep.pauseMode], ['paused', 'filesystem']);
    const { build } = await thaw.sdk.sandboxes.get(id);
    assert.deepEqual(await ask(201, 'POST', `${path}/connect`, { timeout: 60 }), made);
    const rebooted = await bootId(id);
    assert.notEqual(rebooted, booted);
    assert.equal(
      await thaw.sh(id, 'cat /root/file /root/late; tail -1 /root/many; ls /dev/shm'),
      'kept\nlate\n100000\n',
    );
    assert.equal((await agent(id, '/envs', { headers })).status, 200);

    // The disk is what both kinds go on from.
    await thaw.sh(id, 'echo more > /root/more; echo run > /dev/shm/again');
    await ask(204, 'POST', `${path}/pause`, { memory: true });
    const after = await thaw.sdk.sandboxes.get(id);
    assert.notEqual(after.build?.id, build?.id);
    await ask(201, 'POST', `/v2${path}/connect`, {});
    assert.equal(await bootId(id), rebooted);
    assert.equal(
      await thaw.sh(id, 'cat /root/file /root/late /root/more /dev/shm/again'),
      'kept\nlate\nmore\nrun\n',
    );
    await ask(204, 'POST', `${path}/pause`, { memory: false });
    await thaw.restart();
    assert.equal((await ask<Detail>(200, 'GET', path)).pauseMode, 'filesystem');
    await ask(201, 'POST', `/v2${path}/connect`, {});
    assert.equal(await thaw.sh(id, 'cat /root/more'), 'more\n');
    await ask(204, 'DELETE', path);
  });

  it('loses nothing of a guest that hangs, and says so', async () => {
    const { sandboxID: id } = await ask<Made>(201, 'POST', '/v2/sandboxes', {
      templateID: 'minimal',
      timeout: 600,
    });
    const path = `/sandboxes/${id}`;
    await thaw.sh(id, 'echo kept > /root/file; sync');
    await thaw.sh(id, '(sleep 1; kill -STOP $(pidof thaw-envd)) > /dev/null 2>&1 &');
    await sleep(3000);
    const refused = await ask<{ code: number }>(503, 'POST', `${path}/pause`, { requireHealthyGuest: true });
    assert.equal(refused.code, 503);
    // It cannot write down what it has in memory: that is kept.
    await ask(204, 'POST', `${path}/pause`, { memory: false });
    assert.equal((await ask<Detail>(200, 'GET', path)).pauseMode, 'full');
    const hung = await ask<{ error_code: string }>(409, 'POST', `/v2${path}/connect`, {});
    assert.equal(hung.error_code, 'sandbox_snapshot_guest_agent_unresponsive');
    await ask(201, 'POST', `/v2${path}/connect`, { memory: false });
    assert.equal(await thaw.sh(id, 'cat /root/file'), 'kept\n');
    await ask(204, 'DELETE', path);
  });
});
