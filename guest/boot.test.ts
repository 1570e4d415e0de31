// Process 1 on a real VM: stock QEMU, emulated, no network but two forwarded ports on loopback.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { type IncomingMessage, type RequestOptions, request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { kernelCmdline, processors } from '../packages/host-agent/src/vmm/qemu/argv.ts';
import { guestDir, notBuilt } from './fixture.ts';
import { run } from './run.ts';

const qemu = '/usr/bin/qemu-system-x86_64';
const skip = notBuilt || (existsSync(qemu) ? false : `no ${qemu}`);
const bootDeadlineMs = 60_000;
const GUEST = { accelerator: 'tcg', vcpus: 1 } as const;

test('boots, restarts the agent, reaps orphans, stops with a clean disk', { skip }, async () => {
  await using undo = new AsyncDisposableStack();
  const vm = await boot(undo);
  await vm.init(1);
  const facts = await vm.shell(
    'hostname; id -un; ulimit -n; cat /proc/sys/fs/inotify/max_user_watches; ip -o route',
  );
  const [hostname, user, openFiles, watches, route] = facts.split('\n');
  assert.deepEqual([hostname, user, openFiles], ['box', 'root', '1024']);
  assert.ok(Number(watches) >= 65536);
  assert.match(route!, /^default via 169\.254\.0\.22 dev eth0/);

  assert.match(await vm.shell('PATH=/mine:$PATH; export PATH; bash -l -c "echo \\$PATH"'), /^\/mine:/);
  assert.equal(await vm.shell('(setsid sh -c "exit 3" &); sleep 0.5; ps -eo stat= | grep -c ^Z'), '0\n');

  await vm.shell('kill -KILL $(pgrep -f thaw-envd)').catch(() => {});
  await vm.answers();
  await vm.init(2);
  assert.match(await vm.console(), /guest agent ended \(signal 9\), restarting/);

  await vm.shell('echo kept > /root/file; kill -TERM 1').catch(() => {});
  assert.equal(await vm.exit, 0);
  await run(['e2fsck', '-fn', vm.disk]);
  assert.equal(await run(['debugfs', '-R', 'cat /root/file', vm.disk]), 'kept\n');
});

test('a VM without a root disk ends and says why', { skip }, async () => {
  await using undo = new AsyncDisposableStack();
  const dir = await workDir(undo);
  const vm = start(undo, dir, []);
  assert.equal(await ended(vm), 0);
  assert.match(await readFile(join(dir, 'console'), 'utf8'), /thaw-init: \/dev\/vda did not appear/);
});

async function boot(undo: AsyncDisposableStack) {
  const dir = await workDir(undo);
  const disk = join(dir, 'disk');
  await run(['cp', '--sparse=always', join(guestDir, 'minimal.ext4'), disk]);
  const [protocol, control] = [await freePort(), await freePort()];
  const forward = (port: number, guest: number) => `hostfwd=tcp:127.0.0.1:${port}-169.254.0.21:${guest}`;
  const net = 'net=169.254.0.20/30,host=169.254.0.22,dns=169.254.0.23,dhcpstart=169.254.0.21';
  const child = start(undo, dir, [
    ['-blockdev', `driver=raw,node-name=d0,file.driver=file,file.drop-cache=off,file.filename=${disk}`],
    ['-device', 'virtio-blk-device,drive=d0'],
    ['-netdev', `user,id=n0,restrict=on,${net},${forward(protocol, 49983)},${forward(control, 49982)}`],
    ['-device', 'virtio-net-device,netdev=n0,mac=02:fc:00:00:00:05,status=off'],
  ]);
  const answers = () => health(`http://127.0.0.1:${protocol}/health`, child);
  await answers();
  return {
    disk,
    answers,
    exit: ended(child),
    console: () => readFile(join(dir, 'console'), 'utf8'),
    init: (counter: number) => postInit(`http://127.0.0.1:${control}/init`, counter, child),
    shell: (command: string) => shell(`http://127.0.0.1:${protocol}/process.Process/Start`, command),
  };
}

function start(undo: AsyncDisposableStack, dir: string, devices: string[][]): ChildProcess {
  const args = [
    ['-M', 'microvm,acpi=on,pcie=off,rtc=on,pic=off,pit=off', '-accel', 'tcg,tb-size=64', '-cpu', 'Nehalem'],
    ['-smp', processors(GUEST)],
    ['-m', '256', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ['-serial', `file:${join(dir, 'console')}`, '-device', 'virtio-rng-device'],
    ['-kernel', join(guestDir, 'vmlinux'), '-initrd', join(guestDir, 'initramfs.cpio')],
    ...devices,
  ].flat();
  const child = spawn(qemu, [...args, '-append', cmdline], { stdio: 'ignore' });
  undo.defer(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  });
  return child;
}

const cmdline = await (async () => {
  // A rate near the true one is enough here; the guest's clock runs off by the difference.
  const mhz = /^cpu MHz\s*: ([\d.]+)$/m.exec(await readFile('/proc/cpuinfo', 'utf8'))?.[1] ?? '2500';
  return kernelCmdline({ ...GUEST, tscKhz: Math.round(Number(mhz) * 1000), cmdline: [] }).join(' ');
})();

async function workDir(undo: AsyncDisposableStack): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'thaw-boot-'));
  undo.defer(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

async function ended(child: ChildProcess): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  return child.exitCode;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

interface Answer {
  status: number | undefined;
  body: Buffer;
}

/** One request on a connection of its own: the agent closes those of an earlier identity. */
async function ask(url: string, options: RequestOptions, body?: string | Buffer): Promise<Answer> {
  const call = request(url, { agent: false, ...options });
  call.end(body);
  const [response] = (await once(call, 'response')) as [IncomingMessage];
  return { status: response.statusCode, body: Buffer.concat(await response.toArray()) };
}

/** Tries again while the connection fails, as it does while the agent is not there. */
async function eventually(child: ChildProcess, send: () => Promise<Answer>): Promise<Answer> {
  const deadline = performance.now() + bootDeadlineMs;
  for (;;) {
    try {
      return await send();
    } catch (cause) {
      if (performance.now() > deadline || child.exitCode !== null) throw cause;
      await sleep(50);
    }
  }
}

async function health(url: string, child: ChildProcess): Promise<void> {
  const answer = await eventually(child, () => ask(url, { signal: AbortSignal.timeout(1000) }));
  assert.equal(answer.status, 204);
}

async function postInit(url: string, counter: number, child: ChildProcess): Promise<void> {
  const body = {
    counter,
    timestamp: new Date().toISOString(),
    entropy: randomBytes(64).toString('base64'),
    sandboxId: 'sbtest',
    templateId: 'minimal',
    hostname: 'box',
    machineId: randomBytes(16).toString('hex'),
    defaultUser: 'root',
  };
  const answer = await eventually(child, () => ask(url, { method: 'POST' }, JSON.stringify(body)));
  assert.equal(answer.status, 204, answer.body.toString());
}

/** Standard output of a command; the envelopes of the Connect protocol are a flag, a length and JSON. */
async function shell(url: string, command: string): Promise<string> {
  const json = Buffer.from(JSON.stringify({ process: { cmd: '/bin/bash', args: ['-l', '-c', command] } }));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(json.length, 1);
  const headers = {
    'content-type': 'application/connect+json',
    'connect-protocol-version': '1',
    authorization: `Basic ${Buffer.from('root:').toString('base64')}`,
  };
  const { status, body: bytes } = await ask(url, { method: 'POST', headers }, Buffer.concat([head, json]));
  assert.equal(status, 200, bytes.toString());
  let output = '';
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at + 1);
    const message = JSON.parse(bytes.toString('utf8', at + 5, at + 5 + length));
    output += Buffer.from(message.event?.data?.stdout ?? '', 'base64').toString();
    at += 5 + length;
  }
  return output;
}
