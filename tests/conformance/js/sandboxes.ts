import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SandboxInfo, SandboxListOpts } from 'e2b';
import { type Cases, eventually, fails, type Sdk, sh } from './stage.ts';

/** What an SDK says of a sandbox that is not there, newest first. */
const GONE = ['SandboxNotFoundError', 'NotFoundError', 'SandboxError'];

async function ids(sdk: Sdk, options: SandboxListOpts): Promise<string[]> {
  return (await all(sdk, options)).map(({ sandboxId }) => sandboxId);
}

async function all(sdk: Sdk, options: SandboxListOpts): Promise<SandboxInfo[]> {
  const pages = sdk.Sandbox.list(options);
  const found: SandboxInfo[] = [];
  while (pages.hasNext) found.push(...(await pages.nextItems()));
  return found;
}

export const sandboxes: Cases = {
  'sandboxes/create': async ({ create }) => {
    const sandbox = await create({ metadata: { purpose: 'test' }, envs: { GREETING: 'hello' } });
    assert.match(sandbox.sandboxId, /^[a-z0-9]+$/);
    assert.equal(await sandbox.isRunning(), true);
    assert.equal(await sh(sandbox, 'echo $GREETING from $(whoami) in $PWD'), 'hello from user in /home/user');
    assert.equal(await sh(sandbox, 'echo $E2B_SANDBOX $E2B_SANDBOX_ID'), `true ${sandbox.sandboxId}`);
  },

  'sandboxes/connect': async ({ sdk, create }) => {
    const sandbox = await create({ timeoutMs: 200_000 });
    await sandbox.files.write('note.txt', 'left here');
    const before = await sandbox.getInfo();
    const other = await sdk.Sandbox.connect(sandbox.sandboxId, { timeoutMs: 60_000 });
    assert.equal(other.sandboxId, sandbox.sandboxId);
    assert.equal(await other.files.read('note.txt'), 'left here');
    // A shorter timeout does not shorten what is left (SDKs of 2.2 set it all the same); a longer one counts.
    if (sdk.Sandbox.prototype.pause !== undefined) {
      assert.deepEqual((await sandbox.getInfo()).endAt, before.endAt);
    }
    await sdk.Sandbox.connect(sandbox.sandboxId, { timeoutMs: 900_000 });
    assert.ok((await sandbox.getInfo()).endAt.getTime() > before.endAt.getTime() + 500_000);
    await fails(sdk.Sandbox.connect('i0000000000000000000'), ...GONE);
  },

  'sandboxes/list': async ({ sdk, create }) => {
    const run = randomUUID();
    const first = await create({ metadata: { run, 'a b&c=d': 'é %2F?+' } });
    const second = await create({ metadata: { run, which: 'second' } });
    assert.deepEqual(
      new Set(await ids(sdk, { query: { metadata: { run } } })),
      new Set([first.sandboxId, second.sandboxId]),
    );
    assert.deepEqual(await ids(sdk, { query: { metadata: { run, which: 'second' } } }), [second.sandboxId]);
    assert.deepEqual(await ids(sdk, { query: { metadata: { run, 'a b&c=d': 'é %2F?+' } } }), [
      first.sandboxId,
    ]);
    assert.deepEqual(await ids(sdk, { query: { metadata: { run }, state: ['paused'] } }), []);
    const [info] = await all(sdk, {
      query: { metadata: { run, which: 'second' }, state: ['running', 'paused'] },
    });
    assert.equal(info?.state, 'running');
    assert.deepEqual(info.metadata, { run, which: 'second' });
    assert.ok(info.endAt > info.startedAt && info.cpuCount >= 1 && info.memoryMB >= 128);
  },

  'sandboxes/list-pages': async ({ sdk, create }) => {
    const run = randomUUID();
    const made = [];
    for (let n = 0; n < 3; n += 1) made.push((await create({ metadata: { run } })).sandboxId);
    const pages = sdk.Sandbox.list({ limit: 2, query: { metadata: { run } } });
    const first = await pages.nextItems();
    assert.deepEqual(
      first.map(({ sandboxId }) => sandboxId),
      [made[2], made[1]],
    );
    assert.equal(pages.hasNext, true);
    // From the token alone, as another process would.
    const rest = sdk.Sandbox.list({ limit: 2, nextToken: pages.nextToken!, query: { metadata: { run } } });
    assert.deepEqual(
      (await rest.nextItems()).map(({ sandboxId }) => sandboxId),
      [made[0]],
    );
    assert.equal(rest.hasNext, false);
    const exact = sdk.Sandbox.list({ limit: 3, query: { metadata: { run } } });
    assert.equal((await exact.nextItems()).length, 3);
    assert.equal(exact.hasNext, false, 'a page that ends with the last item is the last');
  },

  'sandboxes/list-order': async ({ sdk, create }) => {
    const run = randomUUID();
    const query = { metadata: { run } };
    const first = await create({ metadata: { run } });
    await sleep(50);
    const second = await create({ metadata: { run } });
    const both = [first.sandboxId, second.sandboxId];
    assert.deepEqual(await ids(sdk, { query, order: 'asc' }), both);
    assert.deepEqual(await ids(sdk, { query, order: 'desc' }), both.toReversed());
    const { startedAt } = await second.getInfo();
    assert.deepEqual(await ids(sdk, { query: { ...query, startedAfter: startedAt } }), [second.sandboxId]);
    assert.deepEqual(await ids(sdk, { query: { ...query, template: 'base' }, order: 'asc' }), both);
    assert.deepEqual(await ids(sdk, { query: { ...query, template: 'no-such-template' } }), []);
  },

  'sandboxes/kill': async ({ sdk, create }) => {
    const sandbox = await create();
    assert.equal(await sdk.Sandbox.kill(sandbox.sandboxId), true);
    // Older SDKs answer nothing here.
    assert.ok(!(await sandbox.kill()));
    assert.equal(await sandbox.isRunning(), false);
    assert.equal(await sdk.Sandbox.kill(sandbox.sandboxId), false);
    await fails(sandbox.getInfo(), ...GONE);
    // What a command says then has changed over the versions.
    await fails(sandbox.commands.run('true'), 'SandboxNotFoundError', 'TimeoutError', 'NotFoundError');
  },

  'sandboxes/timeout': async ({ create }) => {
    const sandbox = await create({ timeoutMs: 120_000 });
    await sandbox.setTimeout(600_000);
    const left = (await sandbox.getInfo()).endAt.getTime() - Date.now();
    assert.ok(left > 580_000 && left < 610_000, `${left} ms left`);
    await sandbox.setTimeout(2000);
    await eventually(async () => assert.equal(await sandbox.isRunning(), false));
    await fails(sandbox.getInfo(), ...GONE);
    await fails(sandbox.setTimeout(60_000), ...GONE);
  },

  'sandboxes/info': async ({ sdk, create, version }) => {
    const before = Date.now();
    const sandbox = await create({ metadata: { who: 'me' }, timeoutMs: 300_000 });
    const info = await sdk.Sandbox.getInfo(sandbox.sandboxId);
    assert.equal(info.sandboxId, sandbox.sandboxId);
    assert.ok(info.templateId.length > 0);
    assert.deepEqual(info.metadata, { who: 'me' });
    assert.ok(Math.abs(info.startedAt.getTime() - before) < 30_000);
    const span = info.endAt.getTime() - info.startedAt.getTime();
    assert.ok(span > 295_000 && span < 330_000, `${span} ms from start to end`);
    if (version === '2.51.0') {
      assert.equal(info.name, 'base');
      assert.equal(info.state, 'running');
      assert.match(info.envdVersion, /^\d+\.\d+\.\d+$/);
      assert.deepEqual(info.lifecycle, { onTimeout: 'kill', autoResume: false });
      assert.ok(info.cpuCount >= 1 && info.memoryMB >= 128);
    }
  },

  'sandboxes/metrics': async ({ create }) => {
    const sandbox = await create();
    const metrics = await eventually(async () => {
      const found = await sandbox.getMetrics();
      assert.ok(found.length > 0, 'there are no metrics yet');
      return found;
    }, 45_000);
    const sample = metrics.at(-1)!;
    assert.ok(sample.cpuCount >= 1 && sample.cpuUsedPct >= 0);
    assert.ok(sample.memTotal > 100 * 2 ** 20 && sample.memUsed > 0 && sample.memUsed < sample.memTotal);
    assert.ok(sample.diskTotal > 100 * 2 ** 20 && sample.diskUsed > 0 && sample.diskUsed < sample.diskTotal);
    assert.ok(Math.abs(sample.timestamp.getTime() - Date.now()) < 60_000);
    // SDKs without this field lose the range on the way.
    if (sample.memCache === undefined) return;
    const early = { start: new Date(Date.now() - 7_200_000), end: new Date(Date.now() - 3_600_000) };
    assert.deepEqual(await sandbox.getMetrics(early), []);
  },

  'sandboxes/secured': async ({ create, preview }) => {
    const sandbox = await create();
    const agent = preview(sandbox, 49983);
    const health = await fetch(`${agent}/health`);
    assert.equal(health.status, 204);
    const body = JSON.stringify({ path: '/' });
    const headers = { 'content-type': 'application/json' };
    for (const token of [undefined, 'wrong']) {
      const answer = await fetch(`${agent}/filesystem.Filesystem/ListDir`, {
        method: 'POST',
        headers: { ...headers, ...(token && { 'x-access-token': token }) },
        body,
      });
      assert.equal(answer.status, 401);
      assert.equal(((await answer.json()) as { code: number }).code, 401);
    }
    assert.equal((await fetch(`${agent}/files?path=/etc/passwd`)).status, 401);
    const init = await fetch(`${agent}/init`, { method: 'POST', headers, body: '{}' });
    assert.equal(init.status, 404);
  },
};
