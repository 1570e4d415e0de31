import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { run } from '../os/run.ts';
import { GATEWAY_MAC } from './addresses.ts';
import { OPEN_EGRESS } from './egress.ts';
import { buildInternet, FORBIDDEN, ip, onOwnHost } from './fixture/own-host.ts';
import type { Probe } from './fixture/peer.ts';
import {
  answered,
  openWithGuests,
  poolOptions,
  serve,
  startGuest,
  temporaryFolder,
} from './fixture/peers.ts';
import { applyRules } from './nft.ts';
import type { Slot, SlotPool } from './pool.ts';

const PORTS = [22, 53, 80, 443, 8080, 49982, 49983];
const NOBODY = 65534;
const CLIENT = 990;

/** Every protocol on every sampled port of an address. */
function everything(address: string, from?: string): Probe[] {
  const source = from === undefined ? {} : { from };
  const ports = PORTS.flatMap((port) => [
    { protocol: 'tcp' as const, address, port, ...source },
    { protocol: 'udp' as const, address, port, ...source },
  ]);
  return [...ports, { protocol: 'icmp', address }];
}

/** Counts what matches `match` among the packets that arrive in `netns` (the host's own when undefined). */
async function watch(netns: string | undefined, match: string): Promise<() => Promise<number>> {
  const name = `watch${++watches}`;
  const where = netns === undefined ? undefined : `/run/netns/${netns}`;
  await applyRules(
    `table inet ${name} {
      counter seen { }
      chain arrive { type filter hook prerouting priority raw; ${match} counter name seen
      }
    }`,
    where,
  );
  const inside: [string, ...string[]] = where === undefined ? ['nft'] : ['nsenter', `--net=${where}`, 'nft'];
  return async () => {
    const { stdout } = await run([...inside, '-j', 'list', 'counter', 'inet', name, 'seen']);
    return Number(/"packets": (\d+)/.exec(stdout)?.[1]);
  };
}

let watches = 0;

onOwnHost(import.meta.filename, () => {
  let pool: SlotPool;
  let a: Slot;
  let b: Slot;
  let guestA: string;
  let guestB: string;

  before(async () => {
    await buildInternet();
    await serve('internet', PORTS);
    await serve(undefined, PORTS);
    pool = await openWithGuests(poolOptions(temporaryFolder(), { clientUids: [CLIENT] }), 2);
    a = await pool.take();
    b = await pool.take();
    guestA = await startGuest(a, PORTS);
    guestB = await startGuest(b, PORTS);
    await b.setEgress(OPEN_EGRESS);
    await b.openEgress();
  });
  after(() => pool.close());

  test('nothing leaves a slot before its egress is opened', async () => {
    assert.deepEqual(await answered(guestA, everything('203.0.113.1')), []);
    await a.setEgress(OPEN_EGRESS);
    assert.deepEqual(await answered(guestA, everything('203.0.113.1')), []);
    await a.openEgress();
  });

  test('a guest reaches the internet', async () => {
    const probes = everything('203.0.113.1');
    assert.equal((await answered(guestA, probes)).length, probes.length);
  });

  test('a guest reaches no other guest', async () => {
    const arrived = await watch(guestB, 'meta l4proto { tcp, udp, icmp }');
    const link = a.hostAddress.replace('10.11.', '10.12.').replace(/\.1$/, '');
    const inner = [2, 3, 4, 5].map((last) => `${link}.${last}`);
    assert.deepEqual(
      await answered(
        guestA,
        [b.hostAddress, ...inner].flatMap((address) => everything(address)),
      ),
      [],
    );
    assert.equal(await arrived(), 0);
  });

  test('a guest reaches no address of the host', async () => {
    const { stdout } = await run(['ip', '-json', '-4', 'addr', 'show']);
    const host = (JSON.parse(stdout) as { addr_info: { local?: string }[] }[]).flatMap((link) =>
      link.addr_info.flatMap((address) => address.local ?? []),
    );
    assert.ok(host.includes('203.0.113.2') && host.length >= 4);
    for (const address of [
      ...host.filter((candidate) => !candidate.startsWith('127.')),
      '169.254.0.22',
      a.hostAddress,
    ]) {
      assert.deepEqual(await answered(guestA, everything(address)), [], address);
    }
  });

  test('a guest reaches no special range, though it answers behind the same uplink', async () => {
    for (const address of FORBIDDEN) {
      assert.equal(
        (await answered(undefined, everything(address))).length,
        2 * PORTS.length + 1,
        `host to ${address}`,
      );
      assert.deepEqual(await answered(guestA, everything(address)), [], address);
    }
  });

  test('a spoofed source never leaves', async () => {
    const arrived = await watch('internet', 'ip saddr != 203.0.113.2');
    await ip(['addr add 198.51.100.7/32 dev eth0', 'addr add 10.12.0.5/32 dev eth0'], guestA);
    for (const source of ['198.51.100.7', '10.12.0.5']) {
      const probes = everything('203.0.113.1', source).filter((probe) => probe.protocol !== 'icmp');
      assert.deepEqual(await answered(guestA, probes), [], source);
    }
    assert.equal(await arrived(), 0);
  });

  test('IPv6 does not pass', async () => {
    // The host's own links speak IPv6 among themselves now and then; the guest's packets bear its address.
    const arrived = await watch(undefined, 'ip6 saddr fd00:7::2');
    await ip(
      [
        'addr add fd00:7::2/64 dev eth0 nodad',
        `neigh replace fd00:7::1 lladdr ${GATEWAY_MAC} nud permanent dev eth0`,
        'route add 2001:db8::/32 via fd00:7::1 dev eth0',
      ],
      guestA,
    );
    const probes = ['fd00:7::1', '2001:db8::1'].map((address) => ({
      protocol: 'tcp' as const,
      address,
      port: 80,
    }));
    assert.deepEqual(await answered(guestA, probes), []);
    assert.equal(await arrived(), 0);
    const { stdout } = await run(['nsenter', `--net=${a.netnsPath}`, 'cat', '/proc/net/if_inet6']);
    assert.equal(stdout, '');
  });

  test('only root and the clients reach a guest, and its control port only root', async () => {
    const tcp = PORTS.map((port) => ({ protocol: 'tcp' as const, address: b.hostAddress, port }));
    assert.equal((await answered(undefined, tcp)).length, PORTS.length);
    assert.equal((await answered(undefined, tcp, CLIENT)).length, PORTS.length - 1);
    assert.ok(!(await answered(undefined, tcp, CLIENT)).includes(`tcp ${b.hostAddress}:49982`));
    assert.deepEqual(await answered(undefined, everything(b.hostAddress).slice(0, -1), NOBODY), []);
  });

  test('nobody behind the uplink reaches a guest', async () => {
    await ip(
      [`route add ${b.hostAddress}/32 via 203.0.113.2`, 'route add 10.12.0.0/16 via 203.0.113.2'],
      'internet',
    );
    const probes = [b.hostAddress, '10.12.0.5'].flatMap((address) => everything(address));
    assert.deepEqual(await answered('internet', probes), []);
  });

  test('an address of no slot is unreachable at once instead of leaving by the default route', async () => {
    const { stdout } = await run(['ip', '-json', 'route', 'show', 'type', 'unreachable']);
    const ranges = (JSON.parse(stdout) as { dst: string }[]).map((route) => route.dst);
    assert.deepEqual(ranges.sort(), ['10.11.0.0/20', '10.12.0.0/20']);
  });

  test('the next sandbox in a slot starts without egress', async () => {
    await a.release();
    await assert.rejects(a.setEgress(OPEN_EGRESS), /released/);
    await assert.rejects(a.openEgress(), /released/);
    const { stdout } = await run(['nft', 'list', 'table', 'inet', `thaw_${pool.instance}`]);
    assert.ok(!stdout.includes(`tw${pool.instance}-${a.index}"`));
  });
});
