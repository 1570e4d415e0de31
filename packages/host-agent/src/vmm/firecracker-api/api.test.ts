/** The client against a server that answers what a Firecracker answers, and keeps what it was asked. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { bootCalls, createCall, loadCall, stateCall } from '../firecracker/config.ts';
import { type Call, FirecrackerApi } from './api.ts';
import { FirecrackerError, type Outcome, type Reason, reasonOf } from './refusal.ts';
import { isAtLeast, parseVersion, sendable } from './version.ts';

interface Asked {
  call: string;
  body: unknown;
}

type Answer = { status: number; body?: string } | 'never' | 'hang up';

class Server implements AsyncDisposable {
  readonly asked: Asked[] = [];
  readonly socket: string;
  readonly #dir: string;
  readonly #server: http.Server;
  underWay = 0;
  most = 0;

  private constructor(dir: string, server: http.Server) {
    this.#dir = dir;
    this.socket = path.join(dir, 'api.sock');
    this.#server = server;
  }

  static async start(
    version: string,
    answer: (call: string) => Answer = () => ({ status: 204 }),
  ): Promise<Server> {
    const dir = await mkdtemp(path.join(os.tmpdir(), 'thaw-fc-api-'));
    const server: Server = new Server(
      dir,
      http.createServer(async (request, response) => {
        server.most = Math.max(server.most, ++server.underWay);
        let text = '';
        for await (const part of request.setEncoding('utf8')) text += part;
        await sleep(5);
        server.underWay--;
        const call = `${request.method} ${request.url}`;
        if (call === 'GET /version')
          return void response.end(JSON.stringify({ firecracker_version: version }));
        if (call === 'GET /') return void response.end(JSON.stringify({ id: 'thaw', state: 'Paused' }));
        server.asked.push({ call, body: JSON.parse(text) });
        const given = answer(call);
        if (given === 'never') return;
        if (given === 'hang up') return void response.destroy();
        response.writeHead(given.status).end(given.body);
      }),
    );
    server.#server.listen(server.socket);
    await once(server.#server, 'listening');
    return server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await rm(this.#dir, { recursive: true, force: true });
  }
}

const GUEST = { vcpus: 2, memoryMb: 512, tapName: 'tap0', cmdline: ['thaw.x=1'] };

async function wire(version: string, calls: readonly Call[]): Promise<Asked[]> {
  await using server = await Server.start(version);
  const api = await FirecrackerApi.open(server.socket, 2000);
  await api.calls(calls);
  api.close();
  return server.asked;
}

describe('what Firecracker is asked', () => {
  it('at a boot', async () => {
    const asked = await wire('1.17.0-dev', bootCalls(GUEST));
    const cmdline = (asked[1]!.body as { boot_args: string }).boot_args;
    assert.match(cmdline, /^console=ttyS0 .* reboot=k thaw\.x=1$/);
    // What only an emulator needs is not for KVM: its guests keep their mitigations, and a clock of their own.
    assert.doesNotMatch(cmdline, /mitigations|tsc|no_timer_check|norandmaps|pci=/);
    assert.deepEqual(asked, [
      {
        call: 'PUT /machine-config',
        body: { vcpu_count: 2, mem_size_mib: 512, smt: false, track_dirty_pages: true },
      },
      {
        call: 'PUT /boot-source',
        body: { kernel_image_path: '/boot/vmlinux', initrd_path: '/boot/initramfs', boot_args: cmdline },
      },
      {
        call: 'PUT /drives/rootfs',
        body: {
          drive_id: 'rootfs',
          path_on_host: '/tmp/fc-vm/rootfs.ext4',
          is_root_device: true,
          is_read_only: false,
          cache_type: 'Writeback',
          io_engine: 'Sync',
        },
      },
      {
        call: 'PUT /network-interfaces/eth0',
        body: { iface_id: 'eth0', host_dev_name: 'tap0', guest_mac: '02:fc:00:00:00:05' },
      },
      { call: 'PUT /entropy', body: {} },
      {
        call: 'PUT /balloon',
        body: { amount_mib: 0, deflate_on_oom: true, stats_polling_interval_s: 0 },
      },
      { call: 'PUT /actions', body: { action_type: 'InstanceStart' } },
    ]);
  });

  it('at a boot without a console, with a socket', async () => {
    const vsock = { cid: 3, socket: '/run/vsock.sock' };
    const asked = await wire('1.17.0', bootCalls({ ...GUEST, console: false, vsock }));
    const cmdline = (asked[1]!.body as { boot_args: string }).boot_args;
    assert.match(cmdline, / 8250\.nr_uarts=0 reboot=k thaw\.x=1$/);
    assert.doesNotMatch(cmdline, /console=|nr_uarts=1/);
    assert.deepEqual(asked[4], {
      call: 'PUT /vsock',
      body: { guest_cid: 3, uds_path: '/run/vsock.sock' },
    });
    const [load] = await wire('1.17.0', [
      loadCall({ tapName: 'tap1', vsock, memory: { file: '/snapshot/all' } }),
    ]);
    assert.deepEqual(load!.body, {
      snapshot_path: '/snapshot/loaded',
      mem_backend: { backend_type: 'File', backend_path: '/snapshot/all' },
      track_dirty_pages: true,
      resume_vm: false,
      network_overrides: [{ iface_id: 'eth0', host_dev_name: 'tap1' }],
      vsock_override: { uds_path: '/run/vsock.sock' },
      clock_realtime: true,
    });
  });

  it('around a seal', async () => {
    const [, full] = await wire('1.17.0', [stateCall('Paused'), createCall('Full')]);
    assert.equal((full!.body as { snapshot_type: string }).snapshot_type, 'Full');
    assert.deepEqual(await wire('1.17.0', [stateCall('Paused'), createCall(), stateCall('Resumed')]), [
      { call: 'PATCH /vm', body: { state: 'Paused' } },
      {
        call: 'PUT /snapshot/create',
        body: { snapshot_type: 'Diff', snapshot_path: '/snapshot/state', mem_file_path: '/snapshot/memory' },
      },
      { call: 'PATCH /vm', body: { state: 'Resumed' } },
    ]);
  });

  it('at a load, and of no version what it does not know', async () => {
    const always = {
      snapshot_path: '/snapshot/loaded',
      mem_backend: { backend_type: 'Uffd', backend_path: '/run/pager.sock' },
      resume_vm: false,
    };
    const overrides = { network_overrides: [{ iface_id: 'eth0', host_dev_name: 'tap0' }] };
    const bodies = {
      '1.8.0': { ...always, enable_diff_snapshots: true },
      '1.11.3': { ...always, enable_diff_snapshots: true },
      '1.12.0': { ...always, ...overrides, enable_diff_snapshots: true },
      '1.15.1': { ...always, ...overrides, track_dirty_pages: true },
      '1.16.1': { ...always, ...overrides, track_dirty_pages: true, clock_realtime: true },
      '1.17.0-dev': { ...always, ...overrides, track_dirty_pages: true, clock_realtime: true },
      '2.0.0': { ...always, ...overrides, track_dirty_pages: true, clock_realtime: true },
    };
    for (const [version, body] of Object.entries(bodies))
      assert.deepEqual(
        await wire(version, [loadCall(GUEST)]),
        [{ call: 'PUT /snapshot/load', body }],
        version,
      );
  });

  it('one request at a time', async () => {
    await using server = await Server.start('1.17.0');
    const api = await FirecrackerApi.open(server.socket, 2000);
    await Promise.all([api.call(stateCall('Paused')), api.state(), api.call(createCall()), api.state()]);
    assert.equal(server.most, 1);
    api.close();
  });
});

it('refuses what a version would do otherwise than asked', () => {
  const body = { vsock_override: { uds_path: '/run/v.sock' } };
  assert.deepEqual(sendable([1, 16], 'PUT /snapshot/load', body), body);
  assert.throws(() => sendable([1, 15], 'PUT /snapshot/load', body), { kind: 'invalid_state' });
});

it('reads versions', () => {
  assert.deepEqual(parseVersion('Firecracker v1.17.0-dev'), [1, 17]);
  assert.deepEqual(parseVersion('1.8.0'), [1, 8]);
  assert.equal(parseVersion('QEMU emulator version 7.2.22'), undefined);
  assert.ok(isAtLeast([2, 0], [1, 16]) && isAtLeast([1, 16], [1, 16]) && !isAtLeast([1, 9], [1, 16]));
});

const RESTORE = 'Load snapshot error: Failed to restore from snapshot: ';
const DEVICES = `${RESTORE}Failed to build microVM from snapshot: Failed to restore devices: Error restoring MMIO devices: `;
const UFFD = `${RESTORE}Failed to load guest memory: Error creating guest memory from uffd: `;

/** [what was asked, what Firecracker said, what that means] */
const REFUSALS: readonly [string, string, Outcome, Reason][] = [
  [
    'PUT /snapshot/load',
    'Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.',
    'refused',
    'not-fresh',
  ],
  [
    'PUT /snapshot/load',
    'An error occurred when deserializing the json body of a request: unknown field `x`, expected one of `snapshot_path`',
    'refused',
    'bad-request',
  ],
  [
    'PUT /snapshot/load',
    `${RESTORE}Failed to get snapshot state from file: Failed to open snapshot file: No such file or directory (os error 2)`,
    'fatal',
    'state-missing',
  ],
  [
    'PUT /snapshot/load',
    `${RESTORE}Failed to get snapshot state from file: Failed to load snapshot state from file: An error occurred during bitcode serialization: bitcode error`,
    'fatal',
    'state-damaged',
  ],
  [
    'PUT /snapshot/load',
    `${RESTORE}Failed to load guest memory: Error creating guest memory from file: Failed to load guest memory: No such file or directory (os error 2)`,
    'fatal',
    'memory-missing',
  ],
  [
    'PUT /snapshot/load',
    `${RESTORE}Failed to load guest memory: Error creating guest memory from file: Total sum of memory regions exceeds largest possible file offset`,
    'fatal',
    'memory-short',
  ],
  [
    'PUT /snapshot/load',
    `${RESTORE}Cannot restore hugetlbfs backed snapshot by mapping the memory file. Please use uffd.`,
    'fatal',
    'huge-pages',
  ],
  [
    'PUT /snapshot/load',
    `${UFFD}Failed to connect to UDS Unix stream: No such file or directory (os error 2)`,
    'fatal',
    'pager-missing',
  ],
  [
    'PUT /snapshot/load',
    `${UFFD}Failed to connect to UDS Unix stream: Connection refused (os error 111)`,
    'fatal',
    'pager-missing',
  ],
  [
    'PUT /snapshot/load',
    `${UFFD}Failed to connect to UDS Unix stream: Permission denied (os error 13)`,
    'fatal',
    'pager-refused',
  ],
  [
    'PUT /snapshot/load',
    `${DEVICES}VsockUnixBackend: Error binding to the host-side Unix socket: Address already in use (os error 98)`,
    'fatal',
    'vsock-taken',
  ],
  [
    'PUT /snapshot/load',
    `${DEVICES}Block: Virtio backend error: Error manipulating the backing file: No such file or directory (os error 2) rootfs.ext4`,
    'fatal',
    'drive-missing',
  ],
  ['PUT /snapshot/load', `${RESTORE}Unknown Network Device.`, 'fatal', 'interface-unknown'],
  [
    'PUT /network-interfaces/eth0',
    'Network config error: Open tap device failed: Error while creating ifreq structure: Device or resource busy (os error 16). Invalid TUN/TAP Backend provided by tap0. Check our documentation on setting up the network devices.',
    'refused',
    'tap-busy',
  ],
  [
    'PUT /network-interfaces/eth0',
    'Network config error: Open tap device failed: Error while creating ifreq structure: Operation not permitted (os error 1). Invalid TUN/TAP Backend provided by tap0.',
    'refused',
    'tap-missing',
  ],
  [
    'PUT /drives/rootfs',
    'Drive config error: Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: No such file or directory (os error 2) /tmp/fc-vm/rootfs.ext4',
    'refused',
    'drive-missing',
  ],
  [
    'PUT /snapshot/create',
    'Create snapshot error: Cannot perform open on the snapshot backing file: No such file or directory (os error 2)',
    'refused',
    'path-missing',
  ],
  [
    'PUT /snapshot/create',
    'Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while running',
    'refused',
    'wrong-state',
  ],
  [
    'PUT /snapshot/create',
    'Create snapshot error: Cannot write memory file: No space left on device (os error 28)',
    'refused',
    'disk-full',
  ],
  [
    'PATCH /vm',
    'The requested operation is not supported before starting the microVM.',
    'refused',
    'wrong-state',
  ],
];

it('tells refusals apart', async () => {
  let words = '';
  await using server = await Server.start('1.17.0', () => ({
    status: 400,
    body: JSON.stringify({ fault_message: words }),
  }));
  for (const [asked, text, outcome, reason] of REFUSALS) {
    words = text;
    const api = await FirecrackerApi.open(server.socket, 2000);
    const [method, at] = asked.split(' ') as ['PUT' | 'PATCH', string];
    const error = await api.call({ method, path: at, body: {} }).then(
      () => assert.fail(text),
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof FirecrackerError, text);
    assert.deepEqual([error.outcome, error.reason], [outcome, reason], text);
    assert.ok(!error.message.includes('os error'), 'its words stay inside');
    assert.equal(error.kind, reason === 'disk-full' ? 'exhausted' : 'internal');
    api.close();
  }
  assert.equal(reasonOf('something new'), 'unknown');
});

it('reads an answer that is no JSON', async () => {
  const body =
    '{ "error": "Request payload with size 60000 is larger than the limit of 51200 allowed by server.\nAll previous unanswered requests will be dropped." }';
  await using server = await Server.start('1.17.0', () => ({ status: 400, body }));
  const api = await FirecrackerApi.open(server.socket, 2000);
  await assert.rejects(api.call(createCall()), (error: FirecrackerError) => {
    assert.equal(error.outcome, 'refused');
    assert.match(String(error.cause), /larger than the limit/);
    return true;
  });
  api.close();
});

it('gives a process up that does not answer, and asks it nothing more', async () => {
  await using server = await Server.start('1.17.0', () => 'never');
  const api = await FirecrackerApi.open(server.socket, 2000);
  const stuck = once(api, 'stuck');
  const first = api.call(stateCall('Paused'), 100);
  const waiting = api.call(createCall());
  await assert.rejects(first, { kind: 'timeout', outcome: 'timeout' });
  await stuck;
  await assert.rejects(waiting, { outcome: 'gone' });
  await assert.rejects(api.state(), { outcome: 'gone' });
  assert.equal(server.asked.length, 1);
});

it('notices a process that ends in the middle', async () => {
  await using server = await Server.start('1.17.0', () => 'hang up');
  const api = await FirecrackerApi.open(server.socket, 2000);
  await assert.rejects(api.call(stateCall('Paused')), { outcome: 'gone' });
  api.close();
});

it('waits for a socket, but not for ever and not for a dead process', async () => {
  const nowhere = path.join(os.tmpdir(), 'thaw-fc-api-nowhere.sock');
  await assert.rejects(FirecrackerApi.open(nowhere, 50), { outcome: 'timeout' });
  await assert.rejects(FirecrackerApi.open(nowhere, 60_000, AbortSignal.abort()), { outcome: 'gone' });
});
