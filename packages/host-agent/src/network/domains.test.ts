/** Guests that may reach domains: what the forwarder and the firewall make of it together. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import dns, { type Answer, type DecodedPacket, type Packet } from 'dns-packet';
import { run } from '../os/run.ts';
import { type Egress, OPEN_EGRESS } from './egress.ts';
import type { Zone } from './fixture/name-server.ts';
import { buildInternet, FORBIDDEN, ip, onOwnHost } from './fixture/own-host.ts';
import {
  answered,
  ask,
  guestPlug,
  openFlow,
  openWithGuests,
  poolOptions,
  serve,
  serveNames,
  startGuest,
  temporaryFolder,
} from './fixture/peers.ts';
import { type NetworkOptions, type Slot, SlotPool } from './pool.ts';

const [WEB, OTHER, THIRD, RESOLVER] = ['203.0.113.1', '198.51.100.7', '198.51.100.8', '8.8.8.8'] as const;
const PORT = 80;
const MIN_SEC = 2;

const a = (name: string, data: string, ttl = 60): Answer => ({ type: 'A', name, data, ttl });
const alias = (name: string, data: string): Answer => ({ type: 'CNAME', name, data, ttl: 60 });

const ZONE: Zone = {
  'web.example.com': [a('web.example.com', WEB)],
  'twin.example.com': [a('twin.example.com', WEB)],
  'example.com': [a('example.com', WEB)],
  'other.example.net': [a('other.example.net', OTHER)],
  'short.example.org': [a('short.example.org', WEB, 0)],
  'www.example.org': [
    alias('www.example.org', 'cdn.example.net'),
    alias('cdn.example.net', 'edge.example.net'),
    a('edge.example.net', OTHER),
    // Nobody asked for it.
    a('elsewhere.example.net', THIRD),
  ],
  'many.example.org': Array.from({ length: 60 }, (_, i) => a('many.example.org', `192.0.2.${i + 1}`)),
  'inside.example.org': [...FORBIDDEN, '127.0.0.1', '10.12.0.0'].map((address) =>
    a('inside.example.org', address),
  ),
  'host.example.org': [a('host.example.org', '203.0.113.2')],
  'mixed.example.org': [a('mixed.example.org', '10.99.0.1'), a('mixed.example.org', WEB)],
  'text.example.org': [{ type: 'TXT', name: 'text.example.org', data: 'hello', ttl: 60 }],
};

const limited = (allowDomains: string[], changes: Partial<Egress> = {}): Egress => ({
  ...OPEN_EGRESS,
  internet: false,
  allowDomains,
  ...changes,
});

/** The addresses of an answer; what is no answer is said. */
function addresses(packet: DecodedPacket | null | undefined): string[] | string {
  if (packet === null || packet === undefined) return 'silence';
  const rcode = (packet as { rcode?: string }).rcode ?? '';
  if (rcode !== 'NOERROR') return rcode;
  return (packet.answers ?? []).flatMap((answer) => (answer.type === 'A' ? [answer.data] : []));
}

onOwnHost(import.meta.filename, () => {
  let pool: SlotPool;
  let options: NetworkOptions;
  let slot: Slot;
  let guest: string;
  let free: Slot;
  let freeGuest: string;
  const zoneFile = path.join(temporaryFolder(), 'zone.json');

  const resolve = async (name: string, more = {}) => addresses((await ask(guest, { name, ...more }))[0]);
  const reaches = async (address: string, from = guest) =>
    (await answered(from, [{ protocol: 'tcp', address, port: PORT }])).length === 1;
  const table = async () => (await run(['nft', 'list', 'table', 'inet', `thaw_${pool.instance}`])).stdout;

  before(async () => {
    await buildInternet();
    const far = [OTHER, THIRD, RESOLVER, '192.0.2.1'].map((address) => `addr add ${address}/32 dev lo`);
    await ip(far, 'internet');
    writeFileSync(zoneFile, JSON.stringify(ZONE));
    await serve('internet', [PORT, 853]);
    await serve(undefined, [PORT]);
    await serveNames('internet', zoneFile);
    await serveNames(undefined, zoneFile);
    options = poolOptions(temporaryFolder(), { dnsTtlSec: { min: MIN_SEC, max: 3600 } });
    pool = await openWithGuests(options, 3);
    slot = await pool.take();
    guest = await startGuest(slot, []);
    free = await pool.take();
    freeGuest = await startGuest(free, []);
    await free.setEgress(OPEN_EGRESS);
    await free.openEgress();
  });
  after(() => pool.close());

  test('nothing is answered before the egress is opened', async () => {
    await slot.setEgress(limited(['web.example.com', '*.example.org']));
    assert.equal(await resolve('web.example.com'), 'silence');
    await slot.openEgress();
    assert.deepEqual(await resolve('web.example.com'), [WEB]);
  });

  test('a domain is reachable once it was resolved, and nothing else is', async () => {
    await slot.setEgress(limited(['other.example.net', '*.example.org']));
    assert.ok(!(await reaches(OTHER)));
    assert.deepEqual(await resolve('OTHER.example.net'), [OTHER]);
    assert.ok(await reaches(OTHER));
    assert.ok(!(await reaches(WEB)), 'by its address');
    assert.equal(await resolve('web.example.com'), 'NXDOMAIN');
    assert.ok(!(await reaches(WEB)), 'after it was asked for');
    assert.ok(!(await reaches(THIRD)));
    // A name that lies above an allowed one is there, and one below another is not.
    assert.deepEqual(await resolve('example.org'), []);
    assert.equal(await resolve('x.other.example.net'), 'NXDOMAIN');
  });

  test('who may not reach it is told why', async () => {
    const [packet] = await ask(guest, { name: 'web.example.com', edns: true });
    const option = packet?.additionals?.[0];
    assert.ok(option?.type === 'OPT');
    assert.deepEqual(JSON.parse(JSON.stringify(option.options[0]?.data)).data, [0, 15]);
  });

  test('a wildcard is all that lies below it', async () => {
    await slot.setEgress(limited(['*.example.com']));
    assert.deepEqual(await resolve('web.example.com'), [WEB]);
    assert.ok(await reaches(WEB));
    assert.deepEqual(await resolve('example.com'), [], 'not the name itself');
    assert.equal(await resolve('badexample.com'), 'NXDOMAIN');
    assert.equal(await resolve('gone.example.com'), 'NXDOMAIN');
  });

  test('aliases are followed, and what else an answer says counts for nothing', async () => {
    await slot.setEgress(limited(['www.example.org']));
    const [packet] = await ask(guest, { name: 'www.example.org' });
    assert.deepEqual(
      packet?.answers?.map((answer) => [answer.type, answer.name]),
      [
        ['CNAME', 'www.example.org'],
        ['CNAME', 'cdn.example.net'],
        ['A', 'edge.example.net'],
      ],
    );
    assert.ok(await reaches(OTHER));
    assert.ok(!(await reaches(THIRD)));
  });

  test('an answer that leads inside leads nowhere', async () => {
    await slot.setEgress(limited(['inside.example.org', 'host.example.org', 'mixed.example.org']));
    assert.deepEqual(await resolve('inside.example.org'), []);
    for (const address of FORBIDDEN) assert.ok(!(await reaches(address)), address);
    // The host's own address is public: the rules keep it apart, whatever is open.
    assert.deepEqual(await resolve('host.example.org'), ['203.0.113.2']);
    assert.ok(!(await reaches('203.0.113.2')));
    assert.deepEqual(await resolve('mixed.example.org'), [WEB]);
    assert.ok(await reaches(WEB));
    const text = await table();
    for (const address of [...FORBIDDEN, '127.0.0.1']) {
      assert.ok(!text.includes(`-${slot.index}" . ${address} `), address);
    }
  });

  test('only addresses of version 4 are answered, and other records pass', async () => {
    await slot.setEgress(limited(['web.example.com', 'text.example.org']));
    const [six, text, odd] = await ask(
      guest,
      { name: 'web.example.com', type: 'AAAA' },
      { name: 'text.example.org', type: 'TXT' },
      { name: 'web.example.com', type: 'NULL' },
    );
    assert.deepEqual([six?.answers, odd?.answers], [[], []]);
    assert.equal(text?.answers?.[0]?.type, 'TXT');
    assert.ok(!(await reaches(WEB)));
  });

  test('whatever server is asked, by UDP or TCP, the host answers, and nothing of it leaves', async () => {
    await slot.setEgress(limited(['web.example.com', 'many.example.org']));
    for (const server of [RESOLVER, '10.99.0.1', OTHER, '192.0.2.200']) {
      for (const protocol of ['udp', 'tcp'] as const) {
        assert.deepEqual(
          await resolve('web.example.com', { server, protocol }),
          [WEB],
          `${protocol} ${server}`,
        );
        assert.equal(await resolve('other.example.net', { server, protocol }), 'NXDOMAIN');
      }
    }
    // An answer that is too big for a datagram says so.
    const [cut] = await ask(guest, { name: 'many.example.org' });
    assert.ok(cut?.flag_tc);
    const [whole] = await ask(guest, { name: 'many.example.org', protocol: 'tcp' });
    assert.equal(addresses(whole).length, 60);
    assert.ok(await reaches('192.0.2.1'));
    assert.deepEqual(await answered(guest, [{ protocol: 'tcp', address: RESOLVER, port: 853 }]), []);
  });

  test('a sandbox asks the servers it wants, and none of its host', async () => {
    await slot.setEgress(limited(['web.example.com'], { dnsServers: [THIRD] }));
    assert.deepEqual(await resolve('web.example.com'), [WEB]);
    await slot.setEgress(limited(['web.example.com'], { dnsServers: ['203.0.113.2'] }));
    assert.deepEqual(
      addresses((await ask(undefined, { name: 'web.example.com', server: '203.0.113.2' }))[0]),
      [WEB],
    );
    assert.equal(await resolve('web.example.com'), 'SERVFAIL');
  });

  test('a guest without domains asks whom it wants, directly, and gains nothing by others', async () => {
    await slot.setEgress(limited(['web.example.com']));
    await free.setEgress({ ...OPEN_EGRESS, internet: false, allowOut: [RESOLVER] });
    assert.deepEqual(await resolve('web.example.com'), [WEB]);
    assert.ok(await reaches(WEB));
    const [packet] = await ask(freeGuest, { name: 'other.example.net' });
    assert.deepEqual(addresses(packet), [OTHER]);
    assert.ok(!(await reaches(OTHER, freeGuest)));
    assert.ok(!(await reaches(WEB, freeGuest)));
    assert.equal(addresses((await ask(freeGuest, { name: 'web.example.com', server: THIRD }))[0]), 'silence');
    await free.setEgress(OPEN_EGRESS);
    assert.ok(await reaches(WEB, freeGuest));
  });

  test('the end of its time closes new connections, and open ones go on', async () => {
    await slot.setEgress(limited(['short.example.org']));
    const [packet] = await ask(guest, { name: 'short.example.org' });
    assert.equal(packet?.answers?.[0]?.type === 'A' && packet.answers[0].ttl, 0);
    using flow = openFlow(guest, WEB, PORT);
    await sleep(1000);
    assert.ok(flow.count() > 2);
    assert.ok(await reaches(WEB));
    await sleep(MIN_SEC * 1000);
    assert.ok(!(await reaches(WEB)));
    const before = flow.count();
    await sleep(1000);
    assert.ok(flow.count() > before + 2, 'the open flow goes on');
    // Asked again, it opens again.
    await ask(guest, { name: 'short.example.org' });
    assert.ok(await reaches(WEB));
    // What is taken from the policy is closed at once, for open connections too.
    await slot.setEgress(limited(['other.example.net']));
    assert.ok(!(await reaches(WEB)));
    await sleep(300);
    const cut = flow.count();
    await sleep(1000);
    assert.equal(flow.count(), cut);
  });

  test('a change closes what only the removed domains have opened', async () => {
    await slot.setEgress(limited(['web.example.com', 'twin.example.com', 'other.example.net']));
    await ask(
      guest,
      { name: 'web.example.com' },
      { name: 'twin.example.com' },
      { name: 'other.example.net' },
    );
    assert.ok((await reaches(WEB)) && (await reaches(OTHER)));
    await slot.setEgress(limited(['twin.example.com']));
    assert.ok(await reaches(WEB), 'the twin has the same address');
    assert.ok(!(await reaches(OTHER)));
    await slot.setEgress(limited(['web.example.com']));
    assert.ok(!(await reaches(WEB)), 'of the twin nothing is left');
    await slot.setEgress(limited(['web.example.com'], { internet: true, denyOut: [WEB], allowDomains: [] }));
    assert.ok(!(await reaches(WEB)) && (await reaches(OTHER)));
    // Where only some is denied, domains are open all the same.
    await slot.setEgress(limited(['web.example.com'], { internet: true, denyOut: ['0.0.0.0/0'] }));
    assert.ok(!(await reaches(WEB)));
    assert.deepEqual(await resolve('web.example.com'), [WEB]);
    assert.ok(await reaches(WEB));
  });

  test('a flow to a server of before the policy does not go on around the forwarder', async () => {
    await slot.setEgress(OPEN_EGRESS);
    const asked = { name: 'other.example.net', port: 40_053 };
    assert.deepEqual(addresses((await ask(guest, asked))[0]), [OTHER]);
    await slot.setEgress(limited(['web.example.com'], { allowOut: [RESOLVER] }));
    assert.equal(addresses((await ask(guest, asked))[0]), 'silence');
    assert.equal(await resolve('other.example.net'), 'NXDOMAIN');
  });

  test('a flood is cut, and the next question is answered', async () => {
    await slot.setEgress(limited(['web.example.com']));
    const flood = `const s = require('node:dgram').createSocket('udp4'); let n = 0;
      const go = () => { if (++n > 3000) return s.close();
        s.send(require('node:crypto').randomBytes(n % 600), 53, '8.8.8.8', () => (n % 50 ? go() : setTimeout(go, 1))); }; go();`;
    await run(['nsenter', `--net=/run/netns/${guest}`, process.execPath, '-e', flood]);
    await sleep(2500);
    assert.deepEqual(await resolve('web.example.com'), [WEB]);
    // Many questions in one packet of TCP, whose answers nobody reads; a datagram of port 0, which can't be answered.
    const query: Packet = { type: 'query', questions: [{ type: 'A', name: 'x.net' }] };
    const stream = `const s = require('node:net').connect(53, '8.8.8.8', () => s.pause().write(Buffer.concat(
      Array(2000).fill(Buffer.from('${dns.streamEncode(query).toString('hex')}', 'hex'))))); setTimeout(() => process.exit(), 500)`;
    await run(['nsenter', `--net=/run/netns/${guest}`, process.execPath, '-e', stream]);
    const portless = `use Socket; socket(S, AF_INET, SOCK_RAW, 17) or die; my $q = pack("H*", "${dns.encode(query).toString('hex')}");
      send(S, pack("n4", 0, 53, 8 + length $q, 0) . $q, 0, pack_sockaddr_in(0, inet_aton("8.8.8.8"))) or die;`;
    await run(['nsenter', `--net=/run/netns/${guest}`, '/usr/bin/perl', '-e', portless]);
    await sleep(2500);
    assert.deepEqual(await resolve('web.example.com'), [WEB]);
    assert.match(await table(), /set asking \{[^}]*elements = \{ "tw/);
  });

  test('who does not come from a slot is not answered', async () => {
    for (const netns of [undefined, 'internet']) {
      if (netns !== undefined) await ip(['route add 10.12.0.0/32 via 203.0.113.2'], netns);
      const probes = [1011].flatMap((port) => [
        { protocol: 'tcp' as const, address: '10.12.0.0', port },
        { protocol: 'udp' as const, address: '10.12.0.0', port },
      ]);
      assert.deepEqual(await answered(netns, probes), []);
      assert.equal(
        addresses((await ask(netns, { name: 'web.example.com', server: '10.12.0.0' }))[0]),
        'silence',
      );
    }
  });

  test('after a restart of the host agent open addresses stay for their time, and questions are answered', async () => {
    const egress = limited(['other.example.net', 'short.example.org']);
    await slot.setEgress(egress);
    await ask(guest, { name: 'other.example.net' }, { name: 'short.example.org' });
    using flow = openFlow(guest, WEB, PORT);
    await sleep(500);
    await pool.close();
    assert.equal(await resolve('other.example.net'), 'silence');
    assert.ok(await reaches(OTHER));
    const keep = [
      { index: slot.index, egress },
      { index: free.index, egress: OPEN_EGRESS },
    ];
    pool = await SlotPool.open({ ...options, plug: guestPlug, keep });
    slot = pool.adopt(slot.index);
    free = pool.adopt(free.index);
    assert.ok(await reaches(OTHER));
    await sleep(MIN_SEC * 1000);
    assert.ok(!(await reaches(WEB)));
    const before = flow.count();
    await sleep(500);
    assert.ok(flow.count() > before);
    assert.deepEqual(await resolve('short.example.org'), [WEB]);
    assert.ok(await reaches(WEB));
    await slot.setEgress(limited(['other.example.net']));
    assert.ok(!(await reaches(WEB)));
  });

  test('a released slot leaves nothing', async () => {
    await slot.setEgress(limited(['web.example.com']));
    await resolve('web.example.com');
    const mark = `tw${pool.instance}-${slot.index}"`;
    assert.ok((await table()).includes(mark));
    await slot.release();
    assert.ok(!(await table()).includes(mark));
    await free.release();
    await pool.close();
    const { stdout } = await run(['ip', '-4', 'addr', 'show', 'dev', 'lo']);
    assert.ok(!stdout.includes('10.12.0.0'));
  });
});
