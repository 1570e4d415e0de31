/** Two control planes on one database and one host. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, afterEach, before, describe, it } from 'node:test';
import { pino } from 'pino';
import { livePlanes } from './db/presence.ts';
import { reconcile } from './reconcile/loop.ts';
import { type ControlPlane, startControlPlane } from './start.ts';
import { jsonOf, TestPlane, until } from './testing.ts';

describe('two control planes on one database', () => {
  let test: TestPlane;
  let other: ControlPlane;
  before(async () => {
    test = await TestPlane.start({ server: true });
    other = await startControlPlane(test.config, pino({ level: 'silent' }));
  });
  afterEach(() => test.agent.release());
  after(async () => {
    await other?.[Symbol.asyncDispose]();
    await test?.[Symbol.asyncDispose]();
  });

  const askAt = async (url: string, method: string, path: string, body?: unknown) => {
    const response = await fetch(url + path, {
      method,
      headers: { 'X-API-Key': test.key },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    return { status: response.status, body: response.status === 204 ? undefined : await jsonOf(response) };
  };
  const both = (method: string, path: string, body?: unknown) =>
    Promise.all([test.url, other.url].map((url) => askAt(url, method, path, body)));
  const statusOf = async (id: string) => (await test.ask('GET', `/v1/sandboxes/${id}`)).body.status;
  const sorted = (answers: { status: number }[]) => answers.map(({ status }) => status).sort();

  it('start on an empty database at once', async () => {
    const config = { ...test.config, databaseUrl: await test.cluster.database() };
    const planes = await Promise.all(
      [1, 2, 3].map(() => startControlPlane(config, pino({ level: 'silent' }))),
    );
    try {
      const alive = await livePlanes(planes[0]!.plane.db);
      assert.deepEqual([...alive].sort(), planes.map(({ plane }) => plane.id).sort());
    } finally {
      await Promise.all(planes.map((plane) => plane[Symbol.asyncDispose]()));
    }
  });

  it('let one of two verbs act', async () => {
    const id = await test.createSandbox();
    const calls = test.agent.count('pauseSandbox');
    const release = test.agent.hold('pauseSandbox');
    const pauses = both('POST', `/v1/sandboxes/${id}/pause`);
    await until(async () => (await statusOf(id)) === 'pausing');
    setTimeout(release, 100);
    // The other one is refused, or waits for what the first one does.
    const won = (answers: { status: number }[]) => {
      assert.equal(sorted(answers)[0], 200);
      assert.ok([200, 409].includes(sorted(answers)[1]!), JSON.stringify(answers));
    };
    won(await pauses);
    assert.equal(test.agent.count('pauseSandbox') - calls, 1);
    won(await both('POST', `/v1/sandboxes/${id}/resume`));
    assert.equal(test.agent.count('resumeSandbox'), 1);
    assert.deepEqual(sorted(await both('DELETE', `/v1/sandboxes/${id}`)), [204, 204]);
    assert.equal(await statusOf(id), 'stopped');
    assert.equal(test.agent.sandboxes.has(id), false);
  });

  it('leave alone what the other one is at work on', async () => {
    const release = test.agent.hold('createSandbox');
    const calls = test.agent.count('createSandbox');
    const creating = test.ask('POST', '/v1/sandboxes', {});
    await until(() => test.agent.count('createSandbox') > calls);
    // The host does not know it yet: to anybody else it looks like a create that was cut off.
    await reconcile(other.plane);
    const [pending] = (await askAt(other.url, 'GET', '/v1/sandboxes')).body;
    assert.equal(pending.status, 'pending');
    release();
    const made = await creating;
    assert.equal(made.status, 201);
    assert.equal(await statusOf(made.body.id), 'running');
    await test.ask('DELETE', `/v1/sandboxes/${made.body.id}`);
  });

  it('settle what the other one left when it was killed', async () => {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'main.ts')], {
      env: {
        PATH: process.env.PATH,
        DATABASE_URL: test.config.databaseUrl,
        THAW_AGENT_SOCKET: test.config.agentSocket,
        THAW_LISTEN: '127.0.0.1:0',
        THAW_RECONCILE_MS: '3600000',
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      const url = await new Promise<string>((resolve) => {
        createInterface(child.stdout).on('line', (line) => {
          const { msg, url } = JSON.parse(line);
          if (msg === 'listening') resolve(url);
        });
      });
      const id = (await askAt(url, 'POST', '/v1/sandboxes', {})).body.id;
      const release = test.agent.hold('pauseSandbox');
      askAt(url, 'POST', `/v1/sandboxes/${id}/pause`).catch(() => {});
      await until(async () => (await statusOf(id)) === 'pausing');
      await reconcile(test.running.plane);
      assert.equal(await statusOf(id), 'pausing');
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
      release();
      await until(async () => {
        await reconcile(test.running.plane);
        return (await statusOf(id)) === 'paused';
      });
      await test.ask('DELETE', `/v1/sandboxes/${id}`);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('hold a quota together', async () => {
    await test.ask('PATCH', '/v1/team', { quota: { sandboxes: 5 } });
    const answers = (
      await Promise.all(Array.from({ length: 10 }, () => both('POST', '/v1/sandboxes', {})))
    ).flat();
    const made = answers.filter(({ status }) => status === 201);
    assert.equal(made.length, 5);
    assert.ok(answers.every(({ status }) => status === 201 || status === 429));
    await test.ask('PATCH', '/v1/team', { quota: { sandboxes: null } });
    for (const { body } of made) await test.ask('DELETE', `/v1/sandboxes/${body.id}`);
  });

  it('give a name to one template', async () => {
    const ids = [await test.createSandbox(), await test.createSandbox()];
    const calls = test.agent.count('createSnapshot');
    const release = test.agent.hold('createSnapshot');
    const snapshots = Promise.all(
      [test.url, other.url].map((url, index) =>
        askAt(url, 'POST', '/v1/snapshots', { sandbox_id: ids[index], name: 'both' }),
      ),
    );
    await until(() => test.agent.count('createSnapshot') === calls + 2);
    release();
    const answers = await snapshots;
    assert.deepEqual(sorted(answers), [201, 409], JSON.stringify(answers));
    const named = [...test.agent.templates.values()].filter(({ name }) => name === 'both');
    assert.deepEqual(
      named.map(({ id }) => id),
      [answers.find(({ status }) => status === 201)!.body.id],
    );
    for (const id of ids) await test.ask('DELETE', `/v1/sandboxes/${id}`);
  });

  it('are seen again after the database was away', async () => {
    await test.cluster.crash();
    await test.cluster.restart();
    await until(async () => {
      const alive = await livePlanes(test.running.plane.db).catch(() => new Set<number>());
      return alive.has(test.running.plane.id) && alive.has(other.plane.id);
    });
  });
});
