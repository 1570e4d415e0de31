/** Snapshots, tags, forks, metrics, logs and networks of the E2B API on real VMs, by plain requests. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertNothingStray } from './builds.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { INTERNET, ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

interface Made {
  sandboxID: string;
  templateID: string;
  alias?: string;
  envdAccessToken?: string;
}
interface Info {
  snapshotID: string;
  names: string[];
}
interface Metric {
  timestampUnix: number;
  cpuCount: number;
  cpuUsedPct: number;
  memUsed: number;
  memTotal: number;
  diskUsed: number;
  diskTotal: number;
}

const PEER = path.join(import.meta.dirname, '../../packages/host-agent/src/network/fixture/peer.ts');
const PORT = 80;
const COUNTER = 'i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.05; done';

describe('the E2B API on real VMs', () => {
  let thaw: TestThaw;
  let source: Made;
  let peer: ChildProcess;
  before(async () => {
    const argv = ['netns', 'exec', 'internet', process.execPath, PEER, 'serve', String(PORT)];
    peer = spawn('ip', argv, { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(peer.stdout!, 'data');
    thaw = await startThaw({ env: { THAW_BUILD_GRACE_SEC: '1' } });
    source = await create('minimal');
    await thaw.sh(source.sandboxID, `(${COUNTER}) > /dev/null 2>&1 & echo first > /root/mark; sync`);
  });
  after(async () => {
    await thaw?.stop();
    const ended = once(peer, 'exit');
    peer.kill('SIGKILL');
    await ended;
  });

  const ask = async <T>(status: number, method: string, where: string, body?: unknown): Promise<T> => {
    const answer = await thaw.api<T>(method, where, body);
    assert.equal(
      answer.status,
      status,
      `${method} ${where}: ${JSON.stringify(answer.body)}\n${thaw.log(20)}`,
    );
    return answer.body;
  };
  const create = (templateID: string) =>
    ask<Made>(201, 'POST', '/v2/sandboxes', { templateID, timeout: 900, metadata: { made: templateID } });
  const kill = ({ sandboxID }: Made) => ask<''>(204, 'DELETE', `/sandboxes/${sandboxID}`);
  const snapshot = (name?: string) =>
    ask<Info>(201, 'POST', `/sandboxes/${source.sandboxID}/snapshots`, name === undefined ? {} : { name });
  const template = (name: string) => `/templates/${encodeURIComponent(name)}`;
  const mark = ({ sandboxID }: Made) => thaw.sh(sandboxID, 'cat /root/mark');
  const count = async ({ sandboxID }: Made) =>
    Number(await thaw.sh(sandboxID, 'until n=$(cat /dev/shm/count) && [ -n "$n" ]; do :; done; echo $n'));

  it('makes sandboxes of a snapshot that go on under identities of their own', async () => {
    const before = await count(source);
    const made = await snapshot();
    assert.deepEqual(made.names, []);
    await eventually(async () => assert.ok((await count(source)) > before, 'the source goes on'));
    const clones = [await create(made.snapshotID), await create(made.snapshotID)];
    const tokens = new Set([source, ...clones].map(({ envdAccessToken }) => envdAccessToken));
    assert.equal(tokens.size, 3);
    for (const clone of clones) {
      assert.equal(await mark(clone), 'first\n');
      const first = await count(clone);
      assert.ok(first >= before);
      await eventually(async () => assert.ok((await count(clone)) > first));
      assert.equal(await thaw.sh(clone.sandboxID, 'hostname'), `${clone.sandboxID}\n`);
    }
    await ask(400, 'DELETE', template(made.snapshotID));
    for (const clone of clones) await kill(clone);
    await ask(204, 'DELETE', template(made.snapshotID));
    await ask(404, 'DELETE', template(made.snapshotID));
  });

  it('keeps several builds of a template under tags', async () => {
    const first = await snapshot('app');
    assert.deepEqual(first, { snapshotID: 'default/app:default', names: ['default/app:default'] });
    await ask(201, 'POST', '/templates/tags', { target: 'app', tags: ['v1'] });
    await thaw.sh(source.sandboxID, 'echo second > /root/mark; sync');
    await snapshot('app');
    await thaw.sh(source.sandboxID, 'echo third > /root/mark; sync');
    await snapshot('app:v3');
    const tags = await ask<{ tag: string; buildID: string }[]>(200, 'GET', '/templates/app/tags');
    assert.deepEqual(tags.map(({ tag }) => tag).sort(), ['default', 'v1', 'v3']);
    assert.equal(new Set(tags.map(({ buildID }) => buildID)).size, 3);
    const list = await ask<Info[]>(200, 'GET', `/snapshots?sandboxID=${source.sandboxID}&name=app`);
    assert.equal(list.length, 3);
    assert.equal(list[0]!.snapshotID, 'default/app:v3');

    // Also after both daemons began anew: what a tag names is on the host.
    await thaw.restart();
    const marks: [string, string][] = [
      ['app', 'second\n'],
      ['app:v1', 'first\n'],
      ['default/app:v3', 'third\n'],
    ];
    for (const [name, expected] of marks) {
      const clone = await create(name);
      assert.equal(clone.alias, 'app');
      assert.equal(await mark(clone), expected, name);
      await kill(clone);
    }
    await ask(204, 'DELETE', '/templates/tags', { name: 'app', tags: ['v1'] });
    await ask(404, 'POST', '/v2/sandboxes', { templateID: 'app:v1' });
    await ask(204, 'DELETE', template('app:default'));
    const kept = await create('app:v3');
    assert.equal(await mark(kept), 'third\n');
    await kill(kept);
    await ask(204, 'DELETE', template('app'));
    assert.deepEqual(await ask(200, 'GET', '/snapshots?name=app'), []);
    assert.equal(await mark(source), 'third\n');
  });

  it('forks a sandbox', async () => {
    const before = await count(source);
    const forks = await ask<{ sandbox: Made }[]>(201, 'POST', `/sandboxes/${source.sandboxID}/fork`, {
      count: 2,
      timeout: 300,
    });
    assert.equal(forks.length, 2);
    for (const { sandbox } of forks) {
      assert.ok((await count(sandbox)) >= before);
      assert.equal(await mark(sandbox), 'third\n');
      assert.notEqual(sandbox.envdAccessToken, source.envdAccessToken);
      await kill(sandbox);
    }
    const [short] = await ask<{ sandbox: Made }[]>(201, 'POST', `/sandboxes/${source.sandboxID}/fork`, {
      timeout: 3,
    });
    await eventually(() => ask(404, 'GET', `/sandboxes/${short!.sandbox.sandboxID}`));
  });

  it('tells what sandboxes use, and wakes none for it', async () => {
    const where = `/sandboxes/${source.sandboxID}/metrics`;
    const detail = await ask<{ endAt: string; cpuCount: number; memoryMB: number }>(
      200,
      'GET',
      `/sandboxes/${source.sandboxID}`,
    );
    // One every five seconds.
    const samples = await eventually(async () => {
      const taken = await ask<Metric[]>(200, 'GET', where);
      assert.ok(taken.length > 2, `${taken.length} samples`);
      return taken;
    });
    for (const [index, sample] of samples.entries()) {
      assert.ok(index === 0 || sample.timestampUnix >= samples[index - 1]!.timestampUnix);
      assert.equal(sample.cpuCount, detail.cpuCount);
      assert.ok(sample.cpuUsedPct >= 0 && sample.cpuUsedPct <= 100);
      assert.ok(sample.memUsed > 0 && sample.memUsed < sample.memTotal);
      assert.ok(
        sample.memTotal > 0.7 * detail.memoryMB * 2 ** 20 && sample.memTotal <= detail.memoryMB * 2 ** 20,
      );
      assert.ok(sample.diskUsed > 0 && sample.diskUsed < sample.diskTotal);
    }
    const range = `?start=${samples[1]!.timestampUnix}&end=${samples[1]!.timestampUnix}`;
    assert.equal(
      (await ask<Metric[]>(200, 'GET', where + range))[0]!.timestampUnix,
      samples[1]!.timestampUnix,
    );
    assert.deepEqual(await ask(200, 'GET', `${where}?end=${samples[0]!.timestampUnix - 1000}`), []);

    const fresh = await create('minimal');
    const born = Date.now();
    const all = await eventually(async () => {
      const ids = `${source.sandboxID},${fresh.sandboxID}`;
      const { sandboxes } = await ask<{ sandboxes: Record<string, Metric> }>(
        200,
        'GET',
        `/sandboxes/metrics?sandbox_ids=${ids}`,
      );
      assert.ok(sandboxes[fresh.sandboxID]);
      return sandboxes;
    });
    assert.ok(Date.now() - born < 15_000, 'the first comes soon');
    assert.ok(all[source.sandboxID]!.timestampUnix >= samples.at(-1)!.timestampUnix);
    assert.equal(
      (await ask<{ endAt: string }>(200, 'GET', `/sandboxes/${source.sandboxID}`)).endAt,
      detail.endAt,
    );

    await ask(204, 'POST', `/sandboxes/${fresh.sandboxID}/pause`);
    const kept = (await ask<Metric[]>(200, 'GET', `/sandboxes/${fresh.sandboxID}/metrics`)).length;
    assert.ok(kept > 0);
    await sleep(6000);
    assert.equal((await ask<Metric[]>(200, 'GET', `/sandboxes/${fresh.sandboxID}/metrics`)).length, kept);
    assert.equal((await ask<{ state: string }>(200, 'GET', `/sandboxes/${fresh.sandboxID}`)).state, 'paused');
    await kill(fresh);
    await ask(404, 'GET', `/sandboxes/${fresh.sandboxID}/metrics`);
  });

  it('tells what the console said', async () => {
    const { logs } = await ask<{ logs: { timestamp: string; line: string }[] }>(
      200,
      'GET',
      `/sandboxes/${source.sandboxID}/logs`,
    );
    await thaw.sh(source.sandboxID, 'echo the-mark > /dev/console');
    const found = await eventually(async () => {
      const search = `/v2/sandboxes/${source.sandboxID}/logs?search=the-mark&direction=backward`;
      const { logs: lines } = await ask<{ logs: { message: string }[] }>(200, 'GET', search);
      assert.equal(lines.length, 1);
      return lines[0]!;
    });
    assert.equal(found.message, 'the-mark');
    assert.ok(Array.isArray(logs));
  });

  it('changes what a running sandbox may reach', async () => {
    const reach = (address: string) => {
      const probe = `read -r -n 4 a < /dev/tcp/${address}/${PORT}`;
      return thaw.sh(source.sandboxID, `timeout 3 bash -c '${probe}' 2>/dev/null && echo yes || echo no`);
    };
    const where = `/sandboxes/${source.sandboxID}/network`;
    assert.equal(await reach(INTERNET), 'yes\n');
    await ask(204, 'PUT', where, { denyOut: ['0.0.0.0/0'] });
    assert.equal(await reach(INTERNET), 'no\n');
    await ask(204, 'PUT', where, { denyOut: ['0.0.0.0/0'], allowOut: [INTERNET] });
    assert.equal(await reach(INTERNET), 'yes\n');
    await ask(204, 'PUT', where, { allow_internet_access: false });
    assert.equal(await reach(INTERNET), 'no\n');
    await ask(204, 'PUT', where, {});
    assert.equal(await reach(INTERNET), 'yes\n');
  });

  it('leaves nothing behind', async () => {
    await kill(source);
    await assertNothingStray(thaw);
  });
});
