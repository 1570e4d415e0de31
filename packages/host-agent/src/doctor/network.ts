/** What sandboxes need of the network, and who else is there. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { BLOCKS, blockOf, DEFAULT_RANGES, formatRange, instanceId, overlap } from '../network/addresses.ts';
import { OWN_TABLES } from '../network/firewall.ts';
import { defaultUplink, droppingForwardChains, foreignRoutes } from '../network/inventory.ts';
import { exists } from '../os/exists.ts';
import { run } from '../os/run.ts';
import { type Finding, fail, type Machine, ok, warn } from './finding.ts';
import { reason } from './kernel.ts';

const PROBE_TIMEOUT_MS = 5000;
const IN_OWN_NETWORK = ['unshare', '--net'] as const;

/** The kinds of statements that Thaw's own rules are made of. */
const RULES = `
table inet thaw_doctor {
  set pairs { type ifname . ipv4_addr; }
  set special { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
  chain ingress {
    type filter hook prerouting priority mangle; policy accept;
    iifname . ip saddr != @pairs drop
    ct direction reply ct state established,related accept
    fib daddr type != unicast drop
    ip daddr @special drop
  }
  chain output {
    type filter hook output priority filter; policy accept;
    meta skuid 0 tcp dport 1 accept
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.0.0.0/8 oifname "thaw" masquerade
  }
}
`;

export async function namespaces({ devices }: Machine): Promise<Finding> {
  const fix = 'load tun with `modprobe tun`; in a container, hand in /dev/net/tun and CAP_NET_ADMIN';
  if (!(await exists(devices.tun))) return fail('tun', `there is no ${devices.tun}`, fix);
  const commands = 'tuntap add dev tap0 mode tap\nlink add v0 type veth peer name v1\nlink set v0 up\n';
  try {
    await run([...IN_OWN_NETWORK, 'ip', '-batch', '-'], { input: commands, timeoutMs: PROBE_TIMEOUT_MS });
    return ok('tun', 'a network namespace gets a tap and a link');
  } catch (error) {
    return fail('tun', `no tap or link can be made: ${reason(error)}`, fix);
  }
}

export async function nftables(): Promise<Finding> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'thaw-doctor-'));
  try {
    const file = path.join(folder, 'rules.nft');
    await writeFile(file, RULES);
    await run([...IN_OWN_NETWORK, 'nft', '-f', file], { timeoutMs: PROBE_TIMEOUT_MS });
    // One that stays takes the rules of slots.
    const kept = await run([...IN_OWN_NETWORK, 'nft', '-i'], {
      input: 'add table inet thaw_doctor; list tables\n',
      timeoutMs: PROBE_TIMEOUT_MS,
    });
    if (!kept.stdout.includes('table inet thaw_doctor'))
      return fail(
        'nftables',
        'nft takes no rules one after the other (nft -i)',
        'install the package nftables',
      );
    return ok('nftables', 'takes the rules that sandboxes need');
  } catch (error) {
    return fail(
      'nftables',
      `refuses a rule: ${reason(error)}`,
      'install the package nftables and a kernel with nf_tables, nft_fib and nft_masq',
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A packet must pass every chain: what others drop, no rule of Thaw's can let through. */
export async function forwarding(): Promise<Finding[]> {
  const chains = await droppingForwardChains(OWN_TABLES);
  const findings = chains.map((chain) => {
    const insert = (match: string) => `nft insert rule ${chain} ${match} "tw*" accept`;
    const own = /^ip6? filter FORWARD$/.test(chain)
      ? 'iptables -I FORWARD -i tw+ -j ACCEPT && iptables -I FORWARD -o tw+ -j ACCEPT (with Docker: DOCKER-USER in the place of FORWARD)'
      : `${insert('iifname')} && ${insert('oifname')}`;
    return warn('forwarding', `the firewall chain ${chain} drops what sandboxes send`, own);
  });
  if (await legacyDrops()) {
    findings.push(
      warn(
        'forwarding',
        'the old iptables drop forwarded packets by policy: sandboxes have no internet',
        'iptables-legacy -I FORWARD -i tw+ -j ACCEPT && iptables-legacy -I FORWARD -o tw+ -j ACCEPT',
      ),
    );
  }
  const uplink = await defaultUplink();
  if (uplink === undefined)
    findings.push(warn('uplink', 'there is no default route: sandboxes have no internet', 'set THAW_UPLINK'));
  else findings.push(ok('uplink', uplink));
  return chains.length === 0 && findings.length === 1
    ? [ok('forwarding', 'no other firewall drops what sandboxes send'), ...findings]
    : findings;
}

async function legacyDrops(): Promise<boolean> {
  const tables = await readFile('/proc/net/ip_tables_names', 'utf8').catch(() => '');
  if (!tables.split('\n').includes('filter')) return false;
  const { stdout } = await run(['iptables-legacy', '-S', 'FORWARD'], { timeoutMs: PROBE_TIMEOUT_MS }).catch(
    () => ({ stdout: '' }),
  );
  return /^-P FORWARD (DROP|REJECT)/m.test(stdout);
}

export async function addresses({ data }: Machine): Promise<Finding> {
  const instance = await instanceId(data).catch(() => '');
  const taken = await foreignRoutes(instance);
  const all = Array.from({ length: BLOCKS }, (_, index) => blockOf(instance, index, DEFAULT_RANGES, 0));
  const overlaps = taken.filter((route) =>
    [DEFAULT_RANGES.guests, DEFAULT_RANGES.links].some((range) => overlap(range, route)),
  );
  const free = all.filter((block) =>
    [block.guests, block.links].every((range) => !taken.some((route) => overlap(range, route))),
  );
  const routes = overlaps.map(formatRange).join(', ');
  if (free.length === 0) {
    return fail(
      'addresses',
      `every block of 10.11.0.0/16 and 10.12.0.0/16 overlaps a route of this machine (${routes})`,
      'move the networks that those routes lead to, or remove the routes',
    );
  }
  if (overlaps.length > 0)
    return ok('addresses', `${free.length} of ${BLOCKS} blocks are free; the others overlap ${routes}`);
  return ok('addresses', '10.11.0.0/16 and 10.12.0.0/16 are free');
}

/** Of the API, and of the proxy to guests' ports. */
export async function ports({ listen, proxyListens }: Machine): Promise<Finding[]> {
  // The proxy has no page of its own: its ports are taken for Thaw's where Thaw runs.
  const isThaws = () => thawAnswers(listen);
  // One after the other: each is listened on for a moment.
  const findings = [await port('port', 'THAW_LISTEN', listen, isThaws)];
  for (const [setting, at] of Object.entries(proxyListens))
    findings.push(await port('proxy port', setting, at, isThaws));
  return findings;
}

async function port(
  name: string,
  setting: string,
  listen: string,
  isThaws: () => Promise<boolean>,
): Promise<Finding> {
  const colon = listen.lastIndexOf(':');
  const [host, number] = [listen.slice(0, colon).replace(/^\[|\]$/g, ''), Number(listen.slice(colon + 1))];
  if (colon < 1 || !Number.isInteger(number) || number > 65535)
    return fail(name, `${setting} is ${listen}`, 'make it HOST:PORT');
  const error = await tryToListen(host, number);
  if (error === undefined) return ok(name, `${listen} is free`);
  if (error.code === 'EADDRINUSE') {
    if (await isThaws()) return ok(name, `Thaw runs at ${listen}`);
    return fail(name, `another program listens at ${listen}`, `end it, or choose another ${setting}`);
  }
  return fail(name, `${listen}: ${error.message}`, `choose an address of this machine for ${setting}`);
}

function tryToListen(host: string, number: number): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', resolve);
    server.listen({ host, port: number, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

/** By either protocol; whose certificate it is does not matter here. */
async function thawAnswers(listen: string): Promise<boolean> {
  const where = `${listen.replace(/^0\.0\.0\.0:/, '127.0.0.1:')}/healthz`;
  const settings = { timeout: PROBE_TIMEOUT_MS, agent: false as const };
  const ask = (start: () => http.ClientRequest) =>
    new Promise<boolean>((resolve) => {
      const request = start();
      request.once('error', () => resolve(false));
      request.once('timeout', () => request.destroy(new Error('no answer')));
      request.once('response', (response) => {
        response.resume();
        resolve(response.statusCode === 200);
      });
    });
  if (await ask(() => http.get(`http://${where}`, settings))) return true;
  return ask(() => https.get(`https://${where}`, { ...settings, rejectUnauthorized: false }));
}
