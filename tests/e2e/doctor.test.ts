/** `thaw doctor` on this machine, and its probes on one where something is missing. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { examine, PROBES, type Report } from '../../packages/host-agent/src/doctor/examine.ts';
import type { Finding, Machine } from '../../packages/host-agent/src/doctor/finding.ts';
import { run } from '../../packages/host-agent/src/os/run.ts';
import { ownHost } from './own-host.ts';
import { FIRECRACKER, needsFake } from './vm/firecracker.ts';

await ownHost(import.meta.filename);

const VERSION = process.env.THAW_VERSION_DIR ?? '';
const exec = promisify(execFile);

let folder: string;
let machine: Machine;

before(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'thaw-doctor-'));
  machine = {
    devices: { kvm: '/dev/kvm', userfaultfd: '/dev/userfaultfd', fuse: '/dev/fuse', tun: '/dev/net/tun' },
    versionDir: VERSION,
    qemu: '/usr/bin/qemu-system-x86_64',
    vmm: 'auto',
    firecracker: '/usr/local/bin/firecracker',
    postgres: '/usr/lib/postgresql',
    passwd: '/etc/passwd',
    cpuinfo: '/proc/cpuinfo',
    data: path.join(folder, 'data'),
    listen: '127.0.0.1:0',
    proxyListens: {},
    databaseUrl: undefined,
    cgroup: 'auto',
    kernelRelease: (await readFile('/proc/sys/kernel/osrelease', 'utf8')).trim(),
    architecture: os.arch(),
    uid: 0,
  };
});
after(() => rm(folder, { recursive: true, force: true }));

/** What one probe finds on a machine that differs from this one. */
async function find(probe: string, name: string, differs: Partial<Machine>): Promise<Finding> {
  const probes = PROBES.filter((candidate) => candidate.name === probe);
  assert.equal(probes.length, 1, probe);
  const { findings } = await examine({ ...machine, ...differs }, probes);
  const found = findings.find((finding) => finding.name === name);
  assert.ok(found, `${name}: ${JSON.stringify(findings)}`);
  return found;
}

function assertFinding(found: Finding, status: Finding['status'], text: RegExp, fix?: RegExp): void {
  assert.equal(found.status, status, JSON.stringify(found));
  assert.match(found.found, text);
  if (fix !== undefined) assert.match(found.fix ?? '', fix);
}

test('says that sandboxes can run here, in words and in JSON', async () => {
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', THAW_DATA: machine.data, THAW_LISTEN: '127.0.0.1:0' };
  const program = path.join(VERSION, 'bin/thaw');
  const asJson = await exec(program, ['doctor', '--json'], { env });
  const report = JSON.parse(asJson.stdout) as Report;
  assert.equal(report.ok, true, asJson.stdout);
  for (const name of [
    'KVM',
    'VMM',
    'userfaultfd',
    'PAGEMAP_SCAN',
    'FUSE',
    'tun',
    'nftables',
    'forwarding',
    'addresses',
  ])
    assert.ok(
      report.findings.some((finding) => finding.name === name),
      name,
    );
  for (const name of [
    'port',
    'proxy port',
    'cgroup cpu',
    'sparse files',
    'disk space',
    'reflink',
    'QEMU',
    'PostgreSQL',
    'Node.js',
  ])
    assert.ok(
      report.findings.some((finding) => finding.name === name),
      name,
    );
  const kvm = report.findings.find(({ name }) => name === 'KVM')!;
  assert.equal(report.isolation, kvm.status === 'ok' ? 'hardware-vm' : 'emulated');
  for (const { status, fix, name } of report.findings) if (status === 'fail') assert.ok(fix, name);
  const inWords = await exec(program, ['doctor'], { env });
  assert.match(inWords.stdout, /Sandboxes can run here/);
  assert.equal(
    await readFile('/proc/self/mountinfo', 'utf8').then((text) => text.includes('thaw-doctor')),
    false,
  );
});

test('exits with 1 and says what to do when no sandbox can run', async () => {
  const server = http.createServer((_, response) => response.writeHead(500).end());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const listen = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    const env = { PATH: '/usr/bin:/bin', THAW_DATA: machine.data, THAW_LISTEN: listen };
    await assert.rejects(
      exec(path.join(VERSION, 'bin/thaw'), ['doctor'], { env }),
      (error: { code: number; stdout: string }) => {
        assert.equal(error.code, 1);
        assert.match(error.stdout, /FAIL\s+port\s+another program listens/);
        assert.match(error.stdout, /→ end it, or choose another THAW_LISTEN/);
        assert.match(error.stdout, /No sandbox can run here/);
        return true;
      },
    );
  } finally {
    server.close();
  }
});

test('knows a port that Thaw itself serves', async () => {
  const server = http.createServer((_, response) => response.end('{"status":"ok"}'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const listen = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  assertFinding(await find('port', 'port', { listen }), 'ok', /Thaw runs/);
  const proxyListens = { THAW_PROXY_LISTEN: listen };
  assertFinding(await find('port', 'proxy port', { listen, proxyListens }), 'ok', /Thaw runs/);
  assertFinding(
    await find('port', 'proxy port', { proxyListens }),
    'fail',
    /another program listens/,
    /another THAW_PROXY_LISTEN/,
  );
  server.close();
  assertFinding(await find('port', 'proxy port', { listen, proxyListens }), 'ok', /is free/);
  assertFinding(
    await find('port', 'port', { listen: '192.0.2.9:80' }),
    'fail',
    /EADDRNOTAVAIL/,
    /THAW_LISTEN/,
  );
  assertFinding(await find('port', 'port', { listen: 'nonsense' }), 'fail', /THAW_LISTEN is nonsense/);
});

test('devices that are missing, or are not what they should be', async () => {
  const gone = path.join(folder, 'gone');
  const devices = { kvm: gone, userfaultfd: gone, fuse: gone, tun: gone };
  assertFinding(
    await find('userfaultfd', 'userfaultfd', { devices }),
    'fail',
    /No such file/,
    /CONFIG_USERFAULTFD/,
  );
  assertFinding(await find('FUSE', 'FUSE', { devices }), 'fail', /there is no/, /modprobe fuse/);
  assertFinding(await find('tun', 'tun', { devices }), 'fail', /there is no/, /modprobe tun/);
  const wrong = { ...devices, userfaultfd: '/dev/null', fuse: '/dev/null' };
  assertFinding(await find('userfaultfd', 'userfaultfd', { devices: wrong }), 'fail', /\/dev\/null/);
  assertFinding(await find('FUSE', 'FUSE', { devices: wrong }), 'fail', /can't be mounted/);

  const [capable, incapable] = [path.join(folder, 'capable'), path.join(folder, 'incapable')];
  await writeFile(capable, 'flags\t\t: fpu vmx sse\n');
  await writeFile(incapable, 'flags\t\t: fpu sse\n');
  assertFinding(await find('KVM', 'KVM', { devices, cpuinfo: capable }), 'warn', /emulated/, /modprobe kvm/);
  assertFinding(
    await find('KVM', 'KVM', { devices, cpuinfo: incapable }),
    'warn',
    /no virtualisation/,
    /firmware/,
  );
  const noGuest = { ...devices, kvm: '/dev/null' };
  assertFinding(
    await find('KVM', 'KVM', { devices: noGuest, qemu: '/bin/false' }),
    'warn',
    /no guest starts/,
    /nested/,
  );
});

test('which VMM sandboxes get, and why', async () => {
  const none = { firecracker: '/nonexistent/firecracker' };
  assertFinding(await find('VMM', 'VMM', { ...none, vmm: 'qemu' }), 'ok', /^QEMU: THAW_VMM/);
  const noKvm = { ...none, devices: { ...machine.devices, kvm: '/nonexistent' } };
  assertFinding(await find('VMM', 'VMM', noKvm), 'ok', /^QEMU: there is no/);
  // Where it would be of use, it says how to get it.
  const kvm = { ...none, devices: { ...machine.devices, kvm: '/dev/null' } };
  assertFinding(await find('VMM', 'VMM', kvm), 'warn', /^QEMU/, /put Firecracker 1\.8 or newer at/);
  const wanted = { ...none, vmm: 'firecracker' as const };
  assertFinding(await find('VMM', 'VMM', wanted), 'fail', /there is no/, /THAW_VMM=auto/);
  if (needsFake) return;
  const fake = { firecracker: FIRECRACKER };
  assertFinding(await find('VMM', 'VMM', fake), 'ok', /^Firecracker: it is installed/);
});

test('a system that is too old, foreign, or used by the wrong user', async () => {
  assertFinding(await find('system', 'user', { uid: 1000 }), 'fail', /not root/, /sudo/);
  assertFinding(
    await find('system', 'kernel', { kernelRelease: '5.10.0-28-amd64' }),
    'fail',
    /too old/,
    /6\.1/,
  );
  assertFinding(await find('system', 'kernel', { kernelRelease: '6.1.0-28-amd64' }), 'ok', /6\.1/);
  assertFinding(await find('system', 'processor', { architecture: 'arm64' }), 'fail', /arm64/);
});

test('programs, users and files that are missing', async () => {
  const empty = path.join(folder, 'empty');
  await mkdir(empty, { recursive: true });
  assertFinding(
    await find('QEMU', 'QEMU', { qemu: path.join(empty, 'qemu') }),
    'fail',
    /does not run/,
    /qemu-system-x86/,
  );
  assertFinding(await find('QEMU', 'QEMU', { qemu: '/bin/true' }), 'fail', /version/);
  assertFinding(
    await find('PostgreSQL', 'PostgreSQL', { postgres: empty }),
    'fail',
    /none/,
    /package postgresql/,
  );
  const external = { postgres: empty, databaseUrl: 'postgres://there' };
  assertFinding(await find('PostgreSQL', 'PostgreSQL', external), 'ok', /external/);
  const passwd = path.join(folder, 'passwd');
  await writeFile(passwd, 'root:x:0:0::/root:/bin/sh\nthaw:x:9:9::/:/bin/false\n');
  assertFinding(await find('users', 'users', { passwd }), 'fail', /no user thaw-db/, /thaw install/);
  assertFinding(
    await find('installation', 'installation', { versionDir: empty }),
    'fail',
    /bin\/thaw-keeper/,
  );
});

test('limits that are off, and a data folder that can hold no sandbox', async () => {
  assertFinding(
    await find('cgroups', 'cgroup memory', { cgroup: 'off' }),
    'warn',
    /switched off/,
    /THAW_CGROUP/,
  );
  const small = path.join(folder, 'small');
  await mkdir(small);
  await run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', small]);
  try {
    const data = path.join(small, 'not/there/yet');
    assertFinding(await find('storage', 'disk space', { data }), 'fail', /GiB free/, /another disk/);
  } finally {
    await run(['umount', small]);
  }
});

test('firewalls of others, and networks of others', async () => {
  assertFinding(await find('forwarding', 'forwarding', {}), 'ok', /no other firewall/);
  const rules = path.join(folder, 'rules.nft');
  await writeFile(
    rules,
    'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }\ntable inet fence { chain keep { type filter hook forward priority 5; policy drop; }; }\n',
  );
  await run(['nft', '-f', rules]);
  const { findings } = await examine(
    machine,
    PROBES.filter(({ name }) => name === 'forwarding'),
  );
  const [docker, fence] = findings;
  assertFinding(docker!, 'warn', /ip filter FORWARD/, /iptables -I FORWARD -i tw\+ -j ACCEPT.*DOCKER-USER/);
  assertFinding(fence!, 'warn', /inet fence keep/, /nft insert rule inet fence keep iifname "tw\*" accept/);
  await run(['nft', 'delete table ip filter; delete table inet fence']);

  assertFinding(await find('addresses', 'addresses', {}), 'ok', /are free/);
  await run(['ip', 'route', 'add', '10.11.16.0/20', 'dev', 'uplink0']);
  assertFinding(
    await find('addresses', 'addresses', {}),
    'ok',
    /15 of 16 blocks are free.*10\.11\.16\.0\/20/,
  );
  await run(['ip', 'route', 'add', '10.0.0.0/8', 'dev', 'uplink0']);
  assertFinding(await find('addresses', 'addresses', {}), 'fail', /every block/, /move/);
  for (const range of ['10.0.0.0/8', '10.11.16.0/20']) await run(['ip', 'route', 'del', range]);
});

test('a probe that hangs or breaks counts against the machine, and the others go on', async () => {
  const hangs = { name: 'slow', ifBroken: 'warn' as const, run: () => new Promise<never>(() => {}) };
  const breaks = {
    name: 'broken',
    ifBroken: 'fail' as const,
    run: async () => {
      throw new Error('no such thing');
    },
  };
  const report = await examine(
    machine,
    [hangs, breaks, ...PROBES.filter(({ name }) => name === 'Node.js')],
    200,
  );
  assert.equal(report.ok, false);
  assert.deepEqual(
    report.findings.map(({ name, status }) => `${name} ${status}`),
    ['slow warn', 'broken fail', 'Node.js ok'],
  );
  assert.match(report.findings[1]!.found, /no such thing/);
});
