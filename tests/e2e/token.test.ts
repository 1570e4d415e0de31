/** The guest agent's token: a sandbox keeps its own over a pause, and one that is made of it gets another before it is reached. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Sandbox } from '@thaw/api';
import { startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

describe("the guest agent's token", () => {
  let thaw: TestThaw;
  let sandbox: Sandbox;
  let token: string;
  before(async () => {
    thaw = await startThaw();
    sandbox = await thaw.sdk.sandboxes.create({ memory_mb: 256, env: { FROM: 'source' } });
    token = await tokenOf(sandbox);
  });
  after(() => thaw?.stop());

  const tokenOf = async ({ id }: Sandbox): Promise<string> =>
    JSON.parse(await readFile(path.join(thaw.data, 'sandboxes', id, 'sandbox.json'), 'utf8')).accessToken;

  /** Asks the agent; each connection is a new one. */
  async function ask(
    { id }: Sandbox,
    given?: string,
  ): Promise<{ status: number; env: Record<string, string> }> {
    const { host_ip } = await thaw.sdk.sandboxes.get(id);
    const headers = { connection: 'close', ...(given !== undefined && { 'x-access-token': given }) };
    const answer = await fetch(`http://${host_ip}:49983/envs`, { headers });
    return { status: answer.status, env: (await answer.json()) as Record<string, string> };
  }

  it('is asked for', async () => {
    assert.match(token, /^[0-9a-f]{48}$/);
    assert.equal((await ask(sandbox)).status, 401);
    assert.equal((await ask(sandbox, `${token.slice(0, -1)}x`)).status, 401);
    const { status, env } = await ask(sandbox, token);
    assert.equal(status, 200);
    assert.deepEqual([env.E2B_SANDBOX, env.E2B_SANDBOX_ID, env.FROM], ['true', sandbox.id, 'source']);
  });

  it('is the same after a pause', async () => {
    await thaw.sdk.sandboxes.pause(sandbox.id);
    await thaw.sdk.sandboxes.resume(sandbox.id);
    assert.equal(await tokenOf(sandbox), token);
    assert.equal((await ask(sandbox, token)).status, 200);
    assert.equal((await ask(sandbox)).status, 401);
  });

  it('is another in a fork and in a sandbox of a snapshot', async () => {
    const [fork] = await thaw.sdk.sandboxes.fork(sandbox.id);
    assert.ok(fork !== undefined && 'sandbox' in fork);
    await thaw.sdk.snapshots.create(sandbox.id, { name: 'token' });
    const spawned = await thaw.sdk.sandboxes.create({ template: 'token' });
    const tokens = new Set([token]);
    for (const made of [fork.sandbox, spawned]) {
      const own = await tokenOf(made);
      tokens.add(own);
      assert.equal((await ask(made, token)).status, 401, 'the token of the source');
      const { status, env } = await ask(made, own);
      assert.deepEqual([status, env.E2B_SANDBOX_ID], [200, made.id]);
      assert.equal((await ask(sandbox, own)).status, 401);
    }
    assert.equal(tokens.size, 3);
    assert.equal((await ask(sandbox, token)).status, 200);
    await thaw.sdk.sandboxes.delete(spawned.id);
    await thaw.sdk.snapshots.delete('token');
  });
});
