import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { run } from '../os/run.ts';
import { Steps } from '../os/step.ts';
import { OPEN_EGRESS } from './egress.ts';
import { buildInternet, onOwnHost } from './fixture/own-host.ts';
import { poolOptions, temporaryFolder } from './fixture/peers.ts';
import { links, namespaces } from './inventory.ts';
import { SlotPool } from './pool.ts';

/** Everything a pool may touch on the host, to be equal before and after. */
async function hostState(): Promise<unknown> {
  const outputs = await Promise.all([
    run(['nft', 'list', 'ruleset']),
    run(['ip', '-4', 'route', 'show', 'table', 'all']),
    run(['ip', 'rule', 'show']),
    run(['sysctl', 'net.ipv4.conf.uplink0.forwarding', 'net.ipv4.ip_forward']),
  ]);
  return {
    texts: outputs.map(({ stdout }) => stdout.split('\n').sort()),
    links: (await links()).sort(),
    namespaces: (await namespaces()).sort(),
  };
}

async function crash(data: string, claimsDir: string): Promise<void> {
  const file = path.join(import.meta.dirname, 'fixture/crash.ts');
  const child = spawn(process.execPath, [file, data, claimsDir], { stdio: ['ignore', 'ignore', 'inherit'] });
  const [, signal] = await once(child, 'close');
  assert.equal(signal, 'SIGKILL');
}

async function openLinks(pool: SlotPool): Promise<string> {
  return (await run(['nft', 'list', 'set', 'inet', `thaw_${pool.instance}`, 'open'])).stdout;
}

onOwnHost(import.meta.filename, () => {
  before(buildInternet);

  test('keeps slots warm, hands each out once, and leaves nothing when it closes', async () => {
    const before = await hostState();
    const pool = await SlotPool.open(poolOptions(temporaryFolder(), { size: 3 }));
    await pool.settled();
    assert.equal(pool.counts().warm, 3);
    const slots = await Promise.all(Array.from({ length: 8 }, () => pool.take()));
    for (const of of [
      (s: { hostAddress: string }) => s.hostAddress,
      (s: { netnsPath: string }) => s.netnsPath,
    ]) {
      assert.equal(new Set(slots.map(of)).size, 8);
    }
    assert.equal(new Set(slots.flatMap((slot) => Object.values(slot.uids))).size, 24);
    await Promise.all(slots.flatMap((slot) => [slot.release(), slot.release()]));
    await pool.settled();
    assert.deepEqual(pool.counts(), { warm: 3, taken: 0, free: 2044, aside: 0 });
    await pool.close();
    assert.deepEqual(await hostState(), before);
  });

  test("a slot's tap is its VMM user's, with the addresses every guest knows", async () => {
    await using pool = await SlotPool.open(poolOptions(temporaryFolder()));
    const slot = await pool.take();
    const inside = ['ip', '-netns', path.basename(slot.netnsPath), '-json', '-details'] as const;
    const [link] = JSON.parse((await run([...inside, 'addr', 'show', 'dev', 'tap0'])).stdout);
    assert.equal(link.address, '02:fc:00:00:00:06');
    assert.equal(link.linkinfo.info_data.user, slot.uids.vmm);
    assert.deepEqual([link.addr_info[0].local, link.addr_info[0].prefixlen], ['169.254.0.22', 30]);
    const [neighbour] = JSON.parse((await run([...inside, 'neigh', 'show', 'dev', 'tap0'])).stdout);
    assert.deepEqual(
      [neighbour.dst, neighbour.lladdr, neighbour.state],
      ['169.254.0.21', '02:fc:00:00:00:05', ['PERMANENT']],
    );
    await slot.release();
  });

  test('the longest-released slot comes next', async () => {
    // A small range, so that the line is short: 16 blocks of 8 addresses have 3 slots each.
    const { parseRange } = await import('./addresses.ts');
    const ranges = { guests: parseRange('10.13.0.0/25'), links: parseRange('10.14.0.0/25') };
    await using pool = await SlotPool.open(poolOptions(temporaryFolder(), { ranges }));
    const [a, b, c] = [await pool.take(), await pool.take(), await pool.take()];
    await assert.rejects(pool.take(), { kind: 'exhausted' });
    await b.release();
    await a.release();
    await c.release();
    const again = [await pool.take(), await pool.take(), await pool.take()];
    assert.deepEqual(
      again.map((slot) => slot.index),
      [b.index, a.index, c.index],
    );
    for (const slot of again) await slot.release();
  });

  test('a step that fails leaves nothing of the slot, and the next take works', async () => {
    let failing: string | undefined;
    const steps = new Steps((label) => {
      if (label === failing) throw new Error(`no ${label}`);
    });
    let plug = ['tuntap add dev tap0 mode tap'];
    await using pool = await SlotPool.open(poolOptions(temporaryFolder(), { steps, plug: () => plug }));
    const before = await hostState();
    for (failing of ['network:build-slot', 'network:admit-slot']) {
      await assert.rejects(pool.take(), /no network:/);
      assert.deepEqual(await hostState(), before);
    }
    plug = ['link add tap0 type nonsense'];
    failing = undefined;
    await assert.rejects(pool.take(), { kind: 'internal', message: 'ip failed on the host' });
    assert.deepEqual(await hostState(), before);
    plug = ['tuntap add dev tap0 mode tap'];
    await (await pool.take()).release();
    assert.deepEqual(await hostState(), before);
  });

  test('after a crash, slots in use go on and the rest is swept', async () => {
    const before = await hostState();
    const claimsDir = temporaryFolder();
    const options = poolOptions(claimsDir);
    await crash(options.data, claimsDir);
    const pool = await SlotPool.open({ ...options, keep: [{ index: 1, egress: OPEN_EGRESS }] });
    assert.deepEqual(await namespaces(), ['internet', `thaw-${pool.instance}-1`].sort());
    assert.match(await openLinks(pool), /tw[0-9a-f]{6}-1"/);
    await assert.rejects(SlotPool.open(options), { kind: 'conflict' });
    await pool.close();
    const next = await SlotPool.open({ ...options, keep: [{ index: 1, egress: OPEN_EGRESS }] });
    const slot = next.adopt(1);
    assert.equal(slot.hostAddress, '10.11.0.1');
    await slot.release();
    await next.close();
    assert.deepEqual(await hostState(), before);
  });

  test('two instances live side by side', async () => {
    const before = await hostState();
    const claimsDir = temporaryFolder();
    const one = await SlotPool.open(poolOptions(claimsDir));
    const two = await SlotPool.open(poolOptions(claimsDir));
    const [a, b] = [await one.take(), await two.take()];
    assert.deepEqual([a.hostAddress, b.hostAddress], ['10.11.0.1', '10.11.16.1']);
    assert.ok(b.uids.vmm - a.uids.vmm >= 2048 * 3);
    await b.setEgress(OPEN_EGRESS);
    await b.openEgress();
    await a.release();
    await one.close();
    assert.match(await openLinks(two), /tw[0-9a-f]{6}-1"/);
    const { stdout } = await run(['sysctl', '-n', 'net.ipv4.conf.uplink0.forwarding']);
    assert.equal(stdout.trim(), '1');
    await b.release();
    await two.close();
    assert.deepEqual(await hostState(), before);
  });

  test('instances that start at once claim different blocks', async () => {
    const claimsDir = temporaryFolder();
    const pools = await Promise.all([1, 2, 3].map(() => SlotPool.open(poolOptions(claimsDir))));
    const slots = await Promise.all(pools.map((pool) => pool.take()));
    assert.equal(new Set(slots.map((slot) => slot.hostAddress)).size, 3);
    await Promise.all(slots.map((slot) => slot.release()));
    await Promise.all(pools.map((pool) => pool.close()));
  });

  test('a block that overlaps a route of the machine is not claimed', async () => {
    await run(['ip', 'route', 'add', '10.11.8.0/24', 'dev', 'uplink0']);
    await using pool = await SlotPool.open(poolOptions(temporaryFolder()));
    const slot = await pool.take();
    assert.equal(slot.hostAddress, '10.11.16.1');
    await slot.release();
    await run(['ip', 'route', 'del', '10.11.8.0/24']);
  });

  test('what an instance left whose data is gone is swept by the next one', async () => {
    const before = await hostState();
    const claimsDir = temporaryFolder();
    const gone = temporaryFolder();
    await crash(gone, claimsDir);
    rmSync(gone, { recursive: true });
    const pool = await SlotPool.open(poolOptions(claimsDir));
    assert.deepEqual(await namespaces(), ['internet']);
    const slot = await pool.take();
    assert.equal(slot.hostAddress, '10.11.0.1');
    await slot.release();
    await pool.close();
    assert.deepEqual(await hostState(), before);
  });

  test('a chosen uplink carries guests though the default route is another', async () => {
    await run(['ip', 'link', 'add', 'other0', 'type', 'veth', 'peer', 'name', 'other1']);
    await run(['ip', 'link', 'set', 'other1', 'up']);
    await run(['ip', 'link', 'set', 'other0', 'up']);
    await run(['ip', 'route', 'replace', 'default', 'dev', 'other0']);
    const before = await hostState();
    const pool = await SlotPool.open(poolOptions(temporaryFolder(), { uplink: 'uplink0/203.0.113.1' }));
    const slot = await pool.take();
    const from = slot.hostAddress.replace('10.11.0.1', '10.12.0.3');
    const link = `tw${pool.instance}-${slot.index}`;
    await slot.openEgress();
    const { stdout } = await run(['ip', 'route', 'get', '1.1.1.1', 'from', from, 'iif', link]);
    assert.match(stdout, /via 203\.0\.113\.1 dev uplink0/);
    await slot.release();
    await pool.close();
    assert.deepEqual(await hostState(), before);
  });
});
