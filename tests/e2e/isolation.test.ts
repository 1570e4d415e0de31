/** What a guest can reach: the internet, and neither another guest, nor the host, nor any special range. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { FORBIDDEN } from '../../packages/host-agent/src/network/fixture/own-host.ts';
import { run } from '../../packages/host-agent/src/os/run.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { INTERNET, ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const GUEST = '169.254.0.21';
/** Sampled; the last two are the guest agent's, the third is where Thaw serves in its default settings. */
const SERVED = [22, 80, 8080, 5432];
const PORTS = [...SERVED, 49982, 49983];
const PEER = path.join(import.meta.dirname, '../../packages/host-agent/src/network/fixture/peer.ts');
/** Nobody is there, and no packet may go out to look. */
const NOWHERE = ['10.0.0.1', '172.31.255.254', '192.168.0.1', '100.127.255.254', '224.0.0.1', '240.0.0.1'];

describe('a guest', () => {
  let thaw: TestThaw;
  let a: string;
  let b: string;
  const peers: ChildProcess[] = [];
  before(async () => {
    thaw = await startThaw();
    // The host and the internet answer at every port, also where the rules must keep guests away.
    await serve([process.execPath, PEER, 'serve', ...SERVED.map(String)]);
    await serve(['ip', 'netns', 'exec', 'internet', process.execPath, PEER, 'serve', ...PORTS.map(String)]);
    [a, b] = (
      await Promise.all([
        thaw.sdk.sandboxes.create({ template: 'base' }),
        thaw.sdk.sandboxes.create({ template: 'base' }),
      ])
    ).map(({ id }) => id) as [string, string];
    for (const id of [a, b]) {
      for (const name of ['probe.py', 'serve.py']) {
        const program = await readFile(path.join(import.meta.dirname, 'guest', name));
        await thaw.sdk.sandboxes.writeFile(id, `/root/${name}`, program);
      }
      const ports = SERVED.join(' ');
      await thaw.sh(id, `setsid python3 /root/serve.py ${ports} </dev/null >/root/served 2>&1 &`);
      await eventually(() => thaw.sh(id, 'grep ready /root/served'));
    }
  });
  after(async () => {
    for (const peer of peers) {
      if (peer.exitCode !== null) continue;
      const ended = once(peer, 'exit');
      peer.kill('SIGKILL');
      await ended;
    }
    await thaw?.stop();
  });

  async function serve(argv: readonly string[]): Promise<void> {
    const peer = spawn(argv[0]!, argv.slice(1), { stdio: ['ignore', 'pipe', 'inherit'] });
    peers.push(peer);
    await once(peer.stdout!, 'data');
  }

  /** What answered to sandbox `id`, as `tcp ADDRESS PORT`, `udp ADDRESS PORT`, `icmp ADDRESS`. */
  async function reached(id: string, addresses: readonly string[]): Promise<string[]> {
    const { stdout, stderr, exit_code } = await thaw.sdk.sandboxes.exec(id, {
      cmd: 'python3',
      args: ['/root/probe.py'],
      stdin: JSON.stringify({ wait_s: 4, ports: PORTS, addresses }),
      timeout_sec: 120,
    });
    assert.equal(exit_code, 0, stderr);
    return JSON.parse(stdout);
  }

  /** Every IPv4 address of the host, of all its slots, and of all guests as the host reaches them. */
  async function addressesOfHost(): Promise<string[]> {
    const found = new Set<string>();
    const slots = (await readdir('/run/netns')).filter((name) => name !== 'internet');
    assert.ok(slots.length >= 2);
    for (const where of [[], ...slots.map((name) => ['-netns', name])]) {
      const { stdout } = await run(['ip', ...where, '-json', '-4', 'addr']);
      for (const { addr_info } of JSON.parse(stdout) as { addr_info: { local: string }[] }[]) {
        for (const { local } of addr_info) found.add(local);
      }
    }
    for await (const { host_ip } of thaw.sdk.sandboxes.list()) if (host_ip !== undefined) found.add(host_ip);
    // In a guest these are the guest itself.
    for (const own of ['127.0.0.1', GUEST]) found.delete(own);
    return [...found].toSorted();
  }

  const everything = (address: string) => [
    `icmp ${address}`,
    ...PORTS.flatMap((port) => [`tcp ${address} ${port}`, `udp ${address} ${port}`]),
  ];

  /** From `id`, with the internet as the control in the same run. */
  async function reachesInternetOnly(id: string, addresses: readonly string[]): Promise<void> {
    const answered = await reached(id, [...addresses, INTERNET]);
    assert.deepEqual(answered, everything(INTERNET).toSorted());
  }

  it('is reached by the host, and by no other user of it', async () => {
    const { host_ip } = await thaw.sdk.sandboxes.get(b);
    assert.ok(host_ip);
    const probes = SERVED.flatMap((port) => [
      { protocol: 'tcp', address: host_ip, port },
      { protocol: 'udp', address: host_ip, port },
    ]);
    for (const uid of [0, 65534]) {
      const { stdout } = await run([process.execPath, PEER, 'probe', JSON.stringify({ uid, probes })]);
      assert.deepEqual(
        JSON.parse(stdout),
        probes.map(() => uid === 0),
        `uid ${uid}`,
      );
    }
  });

  it('reaches no other guest, not the host, and the internet', async () => {
    const addresses = await addressesOfHost();
    for (const id of [a, b]) {
      const { host_ip } = await thaw.sdk.sandboxes.get(id);
      assert.ok(addresses.includes(host_ip!), `${host_ip} is none of ${addresses}`);
    }
    await reachesInternetOnly(a, addresses);
    await reachesInternetOnly(b, addresses);
  });

  it('reaches no private range and no metadata service, though they would answer', async () => {
    const probes = FORBIDDEN.map((address) => ({ protocol: 'tcp', address, port: 80 }));
    const { stdout } = await run([process.execPath, PEER, 'probe', JSON.stringify({ uid: 0, probes })]);
    assert.deepEqual(
      JSON.parse(stdout),
      probes.map(() => true),
      'they do not answer the host',
    );
    assert.ok(FORBIDDEN.includes('169.254.169.254'));
    await reachesInternetOnly(a, [...FORBIDDEN, ...NOWHERE]);
  });

  it('has moved to another slot after a resume, and is no less apart', async () => {
    await thaw.sdk.sandboxes.pause(a);
    await thaw.sdk.sandboxes.resume(a);
    await reachesInternetOnly(a, [...(await addressesOfHost()), ...FORBIDDEN]);
    await thaw.sdk.snapshots.create(a, { name: 'frozen' });
    const { id } = await thaw.sdk.sandboxes.create({ template: 'frozen' });
    await reachesInternetOnly(id, [...(await addressesOfHost()), ...FORBIDDEN]);
    await thaw.sdk.snapshots.delete('frozen');
  });
});
