/** What a sandbox's guest may reach: said at create, changed while it runs, kept over pauses and restarts. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { NetworkWishInput } from '@thaw/api';
import type { Zone } from '../../packages/host-agent/src/network/fixture/name-server.ts';
import { FORBIDDEN, ip } from '../../packages/host-agent/src/network/fixture/own-host.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { INTERNET, ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const FIXTURE = path.join(import.meta.dirname, '../../packages/host-agent/src/network/fixture');
/** Another address that answers in the internet. */
const ELSEWHERE = '198.51.100.7';
const [THIRD, RESOLVER] = ['198.51.100.8', '8.8.8.8'];
/** The shortest time that a name opens its addresses for. */
const OPEN_SEC = 30;
const address = (name: string, data: string, ttl = 300): Zone => ({
  [name]: [{ type: 'A', name, data, ttl }],
});
const ZONE: Zone = {
  ...address('web.example.com', INTERNET),
  ...address('other.example.net', INTERNET),
  ...address('one.example.org', ELSEWHERE),
  ...address('example.org', ELSEWHERE),
  ...address('short.example.org', THIRD, 0),
  'inside.example.org': FORBIDDEN.map((data) => ({ type: 'A', name: 'inside.example.org', data, ttl: 300 })),
};
const PORT = 80;
const ALL = [INTERNET, ELSEWHERE];
/** Sends over one flow five times a second and counts what comes back; a datagram is gone once a byte of it is read. */
const FLOW = `
  exec 3<>/dev/udp/${INTERNET}/${PORT}; n=0
  while :; do echo x >&3; read -t 1 -n 1 -u 3 _ && n=$((n+1)) && echo $n > /tmp/flow; sleep 0.2; done`;

describe('the network of a sandbox', () => {
  let thaw: TestThaw;
  const peers: ChildProcess[] = [];
  let folder: string;
  before(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'thaw-zone-'));
    const zone = path.join(folder, 'zone.json');
    await writeFile(zone, JSON.stringify(ZONE));
    const far = [ELSEWHERE, THIRD, RESOLVER].map((one) => `addr add ${one}/32 dev lo`);
    await ip(far, 'internet');
    thaw = await startThaw({ env: { THAW_RECONCILE_MS: '500' } });
    for (const [file, ...args] of [
      ['peer.ts', 'serve', String(PORT)],
      ['name-server.ts', 'serve', zone],
    ] as const) {
      const argv = ['netns', 'exec', 'internet', process.execPath, path.join(FIXTURE, file), ...args];
      const peer = spawn('ip', argv, { stdio: ['ignore', 'pipe', 'inherit'] });
      peers.push(peer);
      await once(peer.stdout!, 'data');
    }
  });
  after(async () => {
    for (const peer of peers) {
      const ended = once(peer, 'exit');
      peer.kill('SIGKILL');
      await ended;
    }
    await rm(folder, { recursive: true, force: true });
    await thaw?.stop();
  });

  const create = async (network?: NetworkWishInput, template?: string) =>
    (
      await thaw.sdk.sandboxes.create({
        timeout_sec: 0,
        ...(network && { network }),
        ...(template && { template }),
      })
    ).id;
  const set = (id: string, network: NetworkWishInput) => thaw.sdk.sandboxes.update(id, { network });

  /** Which of the addresses answer the guest. */
  async function reached(id: string, addresses: readonly string[] = ALL): Promise<string[]> {
    const probe = (address: string) =>
      `(timeout 3 bash -c 'read -r -n 4 a < /dev/tcp/${address}/${PORT} && echo ${address}' 2>/dev/null) &`;
    const output = await thaw.sh(id, `${addresses.map(probe).join('\n')}\nwait`);
    return output.split('\n').filter((line) => line !== '');
  }
  const assertReached = async (id: string, expected: string[], addresses = ALL) =>
    assert.deepEqual((await reached(id, addresses)).toSorted(), expected.toSorted());

  it('is what create says, and never what is special', async () => {
    const open = await create();
    await assertReached(open, ALL);
    const none = await create({ internet: false });
    await assertReached(none, []);
    const some = await create({ allow_out: [INTERNET] });
    await assertReached(some, [INTERNET]);
    const rest = await create({ deny_out: ['203.0.113.0/25', '203.0.113.0/24'], allow_out: [] });
    await assertReached(rest, [ELSEWHERE]);
    const all = await create({ internet: false, allow_out: ['0.0.0.0/0'] });
    await assertReached(all, ALL, [...ALL, ...FORBIDDEN, '169.254.0.22']);
    await Promise.all([open, none, some, rest, all].map((id) => thaw.sdk.sandboxes.delete(id)));
  });

  it('changes at once, for open flows too, and is kept over pauses and restarts', async () => {
    const id = await create();
    await thaw.sh(id, `setsid bash -c '${FLOW}' < /dev/null > /dev/null 2>&1 &`);
    const count = async () => Number(await thaw.sh(id, 'cat /tmp/flow 2>/dev/null || echo 0'));
    await eventually(async () => assert.ok((await count()) > 2));
    await set(id, { internet: false, allow_out: [ELSEWHERE] });
    await assertReached(id, [ELSEWHERE]);
    const cut = await count();
    await thaw.sh(id, 'sleep 2');
    assert.ok((await count()) <= cut + 1, 'an open flow goes on');

    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    await assertReached(id, [ELSEWHERE]);
    await thaw.restart();
    await assertReached(id, [ELSEWHERE]);
    await set(id, {});
    await assertReached(id, ALL);
    await eventually(async () => assert.ok((await count()) > cut + 1));

    // While it is paused there is nothing to be closed: it starts with what was said last.
    await thaw.sdk.sandboxes.pause(id);
    await set(id, { deny_out: [INTERNET] });
    assert.deepEqual(await reached(id), [ELSEWHERE]);
    await thaw.sdk.sandboxes.delete(id);
  });

  it('opens what its domains resolve to, and nothing else', async () => {
    const id = await create({ allow_out: ['web.example.com', '*.example.org'] });
    await assertReached(id, [], [...ALL, THIRD, RESOLVER]);
    const names = ['web.example.com', 'other.example.net', 'example.org', 'inside.example.org'];
    await assertReached(id, ['web.example.com'], names);
    await assertReached(id, [INTERNET], [...ALL, ...FORBIDDEN]);
    await assertReached(
      id,
      ['one.example.org', 'short.example.org'],
      ['one.example.org', 'short.example.org'],
    );
    const shortest = performance.now();
    await assertReached(id, [...ALL, THIRD], [...ALL, THIRD, ...FORBIDDEN]);
    const byTcp = await thaw.sh(id, 'RES_OPTIONS=use-vc getent ahostsv4 web.example.com');
    assert.ok(byTcp.includes(INTERNET), byTcp);
    await assert.rejects(thaw.sh(id, 'RES_OPTIONS=use-vc getent ahostsv4 other.example.net'));

    // A copy of it and what becomes of it have the same policy, and resolve anew.
    const [forked] = await thaw.sdk.sandboxes.fork(id);
    assert.ok(forked !== undefined && 'sandbox' in forked);
    await assertReached(forked.sandbox.id, [], ALL);
    await assertReached(forked.sandbox.id, ['one.example.org'], ['one.example.org', 'other.example.net']);
    await thaw.sdk.sandboxes.delete(forked.sandbox.id);

    const left = OPEN_SEC * 1000 + 1000 - (performance.now() - shortest);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, left)));
    await assertReached(id, ALL, [...ALL, THIRD]);

    await set(id, { allow_out: ['web.example.com'] });
    await assertReached(id, [INTERNET], ALL);
    await assertReached(id, [], ['one.example.org']);
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    await assertReached(id, [], ALL);
    await assertReached(id, ['web.example.com'], ['web.example.com', 'one.example.org']);
    await thaw.restart();
    await assertReached(id, [INTERNET], ALL);
    await assertReached(id, ['web.example.com'], ['web.example.com', 'one.example.org']);
    await set(id, {});
    await assertReached(id, [...ALL, 'other.example.net'], [...ALL, 'other.example.net']);
    await thaw.sdk.sandboxes.delete(id);
  });

  it('is each sandbox’s own: what is made of a snapshot has what its create says', async () => {
    const id = await create({ internet: false });
    await thaw.sdk.snapshots.create(id, { name: 'shut' });
    const open = await create(undefined, 'shut');
    const some = await create({ allow_out: [INTERNET] }, 'shut');
    await assertReached(open, ALL);
    await assertReached(some, [INTERNET]);
    await assertReached(id, []);
    await Promise.all([id, open, some].map((one) => thaw.sdk.sandboxes.delete(one)));
    // A slot that was limited leaves nothing to the next sandbox in it.
    const next = await create();
    await assertReached(next, ALL);
    await thaw.sdk.sandboxes.delete(next);
    await thaw.sdk.snapshots.delete('shut');
  });
});
