/**
 * The whole life of sandboxes under Firecracker, through the API of an installed Thaw. The fake's guest keeps all that it
 * knows in its memory and on its disk, so what it says after a resume is what was stored.
 */
import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { assertNothingStray } from './builds.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { fullTraces } from './places.ts';
import { allProcesses, type Traces } from './traces.ts';
import { FIRECRACKER, JAILER, needsFake, noJailer } from './vm/firecracker.ts';

await ownHost(import.meta.filename);

const SLOTS = 2;

/** How loads end that take the process with them, in Firecracker's words. */
const REFUSED = [
  'Failed to get snapshot state from file: Failed to open snapshot file: No such file or directory (os error 2)',
  'Failed to get snapshot state from file: Failed to load snapshot state from file: An error occurred during bitcode serialization: bitcode error',
  'Failed to load guest memory: Error creating guest memory from uffd: Failed to connect to UDS Unix stream: No such file or directory (os error 2)',
  'Failed to load guest memory: Error creating guest memory from uffd: Failed to connect to UDS Unix stream: Connection refused (os error 111)',
  'Failed to load guest memory: Error creating guest memory from uffd: Failed to connect to UDS Unix stream: Permission denied (os error 13)',
  'Failed to build microVM from snapshot: Failed to restore devices: Error restoring MMIO devices: VsockUnixBackend: Error binding to the host-side Unix socket: Address already in use (os error 98)',
  'Failed to build microVM from snapshot: Failed to restore devices: Error restoring MMIO devices: Block: Virtio backend error: Error manipulating the backing file: No such file or directory (os error 2) rootfs.ext4',
  'Unknown Network Device.',
];

describe('sandboxes under Firecracker', { skip: needsFake }, () => {
  /** Of the next start. */
  const env: Record<string, string> = {
    THAW_VMM: 'firecracker',
    THAW_FIRECRACKER_BIN: FIRECRACKER,
    THAW_SLOT_POOL: String(SLOTS),
    THAW_BUILD_GRACE_SEC: '1',
  };
  let thaw: TestThaw;
  let idle: Traces;
  before(async () => {
    thaw = await startThaw({ env });
    idle = await fullTraces(thaw, SLOTS);
  });
  after(() => thaw.stop());

  const assertIdle = async (message: string) => {
    const now = await thaw.settledTraces((found) => isDeepStrictEqual(found, idle));
    assert.deepEqual(now, idle, message);
  };

  async function failNextStart(id: string, faults: object): Promise<void> {
    const folder = path.join(thaw.run, 'sandboxes', id, 'vmm');
    await mkdir(folder, { recursive: true });
    await writeFile(path.join(folder, 'faults.json'), JSON.stringify(faults));
  }

  it('are created, paused, resumed, snapshotted, spawned and destroyed', async () => {
    const created = await thaw.sdk.sandboxes.create({ memory_mb: 256 });
    assert.deepEqual([created.vmm, created.isolation], ['firecracker', 'hardware-vm']);
    const { id } = created;
    await thaw.sh(id, 'echo memory > /dev/shm/mark && echo disk > /root/mark && sync && fill 20000 2000 5');
    const sum = await thaw.sh(id, 'sum 20000 2000');
    const ticks = Number(await thaw.sh(id, 'ticks'));
    const first = await thaw.sdk.sandboxes.pause(id);
    assert.equal(first.build!.generation, 1, 'after the kept boot');
    assert.ok(first.build!.stored_bytes < 64 * 2 ** 20, `${first.build!.stored_bytes} bytes of 256 MiB`);
    await assertIdle('paused');
    await thaw.sdk.sandboxes.resume(id);
    assert.equal(await thaw.sh(id, 'cat /dev/shm/mark /root/mark'), 'memory\ndisk\n');
    const early = await thaw.sdk.sandboxes.stats(id);
    assert.ok(early.pages_faulted < 2000, `${early.pages_faulted} pages came in at once`);
    assert.equal(await thaw.sh(id, 'sum 20000 2000'), sum);
    assert.ok(Number(await thaw.sh(id, 'ticks')) > ticks, 'it goes on where it was');
    const clock = Number(await thaw.sh(id, 'date +%s'));
    assert.ok(Math.abs(clock - Date.now() / 1000) < 2, `its clock is ${clock}`);
    const second = await thaw.sdk.sandboxes.pause(id);
    assert.equal(second.build!.generation, 2);
    assert.ok(
      second.build!.stored_bytes < 2 * 2 ** 20,
      `${second.build!.stored_bytes} bytes for an idle second`,
    );
    await thaw.sdk.sandboxes.resume(id);

    await thaw.sdk.snapshots.create(id, { name: 'frozen' });
    assert.equal(await thaw.sh(id, 'sum 20000 2000'), sum, 'the source goes on');
    const spawns = await Promise.all([0, 1].map(() => thaw.sdk.sandboxes.create({ template: 'frozen' })));
    const random = await Promise.all(spawns.map((spawn) => thaw.sh(spawn, 'random')));
    assert.notEqual(random[0], random[1]);
    for (const spawn of spawns) {
      assert.equal(await thaw.sh(spawn, 'hostname'), `${spawn.id}\n`);
      assert.equal(await thaw.sh(spawn, 'sum 20000 2000'), sum);
    }
    await thaw.sh(spawns[0]!, 'echo mine > /dev/shm/mark && echo mine > /root/mark && sync');
    assert.equal(await thaw.sh(spawns[1]!, 'cat /dev/shm/mark /root/mark'), 'memory\ndisk\n');
    assert.equal(await thaw.sh(id, 'cat /dev/shm/mark /root/mark'), 'memory\ndisk\n');
    // The running source is sealed again, over what it stands on now.
    await thaw.sh(id, 'zero 20000 500 && echo more > /dev/shm/mark');
    const changed = await thaw.sh(id, 'sum 20000 2000');
    await thaw.sdk.snapshots.create(id, { name: 'frozen', overwrite: true });
    const again = await thaw.sdk.sandboxes.create({ template: 'frozen' });
    assert.equal(await thaw.sh(again, 'sum 20000 2000; cat /dev/shm/mark'), `${changed}more\n`);
    assert.equal(await thaw.sh(spawns[1]!, 'sum 20000 2000'), sum, 'a spawn pages from the old build');
    await thaw.destroyAll();
    await thaw.sdk.snapshots.delete('frozen');
    await assertIdle('destroyed');
    await eventually(() => assertNothingStray(thaw, 'destroyed'));
  });

  it('stay paused when a start fails in any way, and resume afterwards', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ memory_mb: 128 });
    await thaw.sh(id, 'echo kept > /dev/shm/mark');
    await thaw.sdk.sandboxes.pause(id);
    const faults: Record<string, object> = {
      ...Object.fromEntries(REFUSED.map((text) => [text, { fail_load: text }])),
      'it ends while it loads': { die_in_load: true },
      'it hangs while it loads': { hang_in_load: true },
      'it ends at once, with the exit code of success': { exit_after_ms: 1, exit_code: 0 },
      'it ends right after the load': { slow_ms: { 'PATCH /vm': 400 }, exit_after_ms: 300 },
      'it hangs when it is to go on': { hang_on: 'PATCH /vm' },
      'it is no version that Thaw can drive': { version: 'unknown' },
    };
    for (const [what, fault] of Object.entries(faults)) {
      await failNextStart(id, fault);
      const judge = (error: Error & { kind?: string }) => {
        const kinds = ['internal', 'timeout', 'agent_error'];
        assert.ok(kinds.includes(error.kind ?? ''), `${what}: ${error.kind}`);
        assert.doesNotMatch(error.message, /os error|\/run\/|faults/, 'internals stay inside');
        return true;
      };
      await assert.rejects(thaw.sdk.sandboxes.resume(id), judge, what);
      assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'paused', what);
      await assertIdle(what);
    }
    await thaw.sdk.sandboxes.resume(id);
    assert.equal(await thaw.sh(id, 'cat /dev/shm/mark'), 'kept\n');
    await thaw.sdk.sandboxes.delete(id);
  });

  it('stay paused when their pager ends while Firecracker loads', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ memory_mb: 128 });
    await thaw.sdk.sandboxes.pause(id);
    await failNextStart(id, { slow_ms: { 'PUT /snapshot/load': 2000 } });
    const resumed = assert.rejects(thaw.sdk.sandboxes.resume(id), { kind: 'internal' });
    const pager = await eventually(async () => {
      const found = (await allProcesses()).find(({ argv }) => argv[0]?.endsWith('/thaw-pager'));
      assert.ok(found);
      return found.pid;
    });
    process.kill(pager, 'SIGKILL');
    await resumed;
    assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'paused');
    await assertIdle('its pager died');
    await thaw.sdk.sandboxes.resume(id);
    await thaw.sh(id, 'ticks');
    await thaw.sdk.sandboxes.delete(id);
  });

  it('go on when a seal fails, and lose nothing with the next', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ memory_mb: 128 });
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    await thaw.sh(id, 'fill 10000 100 1 && echo first > /dev/shm/mark');
    const file = path.join(thaw.run, 'sandboxes', id, 'vmm/faults.json');
    for (const [fault, code] of [
      [{ no_space: true }, 'exhausted'],
      [{ fail_create: 'Create snapshot error: something' }, 'internal'],
    ] as const) {
      await writeFile(file, JSON.stringify(fault));
      const refused = await thaw.api('POST', `/v1/sandboxes/${id}/pause`);
      assert.equal(refused.body.error.code, code, JSON.stringify(refused.body));
      assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'running');
      await writeFile(file, '{}');
      await thaw.sh(id, `fill 10200 10 2`);
    }
    const sums = await thaw.sh(id, 'sum 10000 100; sum 10200 10');
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    assert.equal(await thaw.sh(id, 'sum 10000 100; sum 10200 10; cat /dev/shm/mark'), `${sums}first\n`);
    await thaw.sdk.sandboxes.delete(id);
  });

  it('become an error with a reason when their VM ends, and go back to the last seal', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ memory_mb: 128 });
    await thaw.sh(id, 'echo sealed > /dev/shm/mark');
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    await thaw.sh(id, 'echo lost > /dev/shm/mark');
    const { pids } = await thaw.sdk.sandboxes.stats(id);
    process.kill(pids.vmm!, 'SIGKILL');
    await eventually(async () => assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'error'));
    await assertIdle('lost');
    const resumed = await thaw.sdk.sandboxes.resume(id);
    assert.ok(resumed.rolled_back_to);
    assert.equal(await thaw.sh(id, 'cat /dev/shm/mark'), 'sealed\n');
    await thaw.sdk.sandboxes.delete(id);
  });

  it('outlive the host agent and their pager', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ memory_mb: 128 });
    await thaw.sh(id, 'echo one > /dev/shm/mark && fill 10000 2000 3');
    const sum = await thaw.sh(id, 'sum 10000 2000');
    // Of a VM that booted the pager serves nothing, but it makes what is stored.
    const booted = (await thaw.sdk.sandboxes.stats(id)).pids;
    process.kill(booted.pager!, 'SIGKILL');
    await eventually(async () =>
      assert.notEqual((await thaw.sdk.sandboxes.stats(id)).pids.pager, booted.pager),
    );
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    const { pids } = await thaw.sdk.sandboxes.stats(id);
    process.kill(pids.pager!, 'SIGKILL');
    assert.equal(await thaw.sh(id, 'sum 10000 2000'), sum);
    const { agent } = await thaw.agentPids();
    process.kill(agent, 'SIGKILL');
    await eventually(async () => assert.equal(await thaw.sh(id, 'cat /dev/shm/mark'), 'one\n'), 60_000);
    assert.equal((await thaw.sdk.sandboxes.stats(id)).pids.vmm, pids.vmm);
    await thaw.sh(id, 'echo two > /dev/shm/mark');
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    assert.equal(await thaw.sh(id, 'cat /dev/shm/mark; sum 10000 2000'), `two\n${sum}`);
    await thaw.sdk.sandboxes.delete(id);
  });

  it('resume only under the VMM they were made with', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ memory_mb: 128 });
    await thaw.sh(id, 'echo kept > /dev/shm/mark');
    await thaw.sdk.sandboxes.pause(id);
    const older = path.join(thaw.data, 'firecracker-1.16');
    await writeFile(older, `#!/bin/sh\nFAKE_FIRECRACKER_VERSION=1.16.1 exec ${FIRECRACKER} "$@"\n`, {
      mode: 0o755,
    });
    env.THAW_FIRECRACKER_BIN = older;
    await thaw.restart();
    const refused = await thaw.api('POST', `/v1/sandboxes/${id}/resume`);
    assert.equal(refused.status, 409);
    assert.match(refused.body.error.message, /1\.17.*1\.16/);
    assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'paused');
    env.THAW_FIRECRACKER_BIN = FIRECRACKER;
    // New ones get QEMU; this one still gets Firecracker.
    env.THAW_VMM = 'qemu';
    await thaw.restart();
    const other = await thaw.sdk.sandboxes.create({ memory_mb: 128 });
    assert.equal(other.vmm, 'qemu');
    const resumed = await thaw.sdk.sandboxes.resume(id);
    assert.equal(resumed.vmm, 'firecracker');
    assert.equal(await thaw.sh(id, 'cat /dev/shm/mark'), 'kept\n');
    // Both go on under an agent that has never started either.
    env.THAW_VMM = 'firecracker';
    await thaw.restart();
    assert.equal(await thaw.sh(id, 'cat /dev/shm/mark'), 'kept\n');
    assert.equal(await thaw.sh(other, 'uname -s'), 'Linux\n');
    await thaw.sdk.sandboxes.pause(other.id);
    await thaw.sdk.sandboxes.resume(other.id);
    await thaw.destroyAll();
  });

  it('leave no file of theirs behind', async () => {
    await thaw.destroyAll();
    assert.deepEqual(await readdir(path.join(thaw.data, 'sandboxes')), []);
    await assertIdle('at the end');
  });
});

describe("sandboxes in the jail of Firecracker's own jailer", { skip: noJailer || needsFake }, () => {
  let thaw: TestThaw;
  before(async () => {
    thaw = await startThaw({
      env: {
        THAW_VMM: 'firecracker',
        THAW_FIRECRACKER_BIN: FIRECRACKER,
        THAW_JAILER: 'official',
        THAW_JAILER_BIN: JAILER!,
        THAW_CONSOLE: 'off',
      },
    });
  });
  after(() => thaw.stop());

  it('are created, paused, resumed, snapshotted, spawned and destroyed', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ memory_mb: 128 });
    await thaw.sh(id, 'echo kept > /dev/shm/mark && echo disk > /root/mark && sync');
    await thaw.sdk.sandboxes.pause(id);
    await thaw.sdk.sandboxes.resume(id);
    await thaw.sdk.snapshots.create(id, { name: 'frozen' });
    const spawn = await thaw.sdk.sandboxes.create({ template: 'frozen' });
    assert.equal(await thaw.sh(spawn, 'cat /dev/shm/mark /root/mark'), 'kept\ndisk\n');
    const { pids } = await thaw.sdk.sandboxes.stats(id);
    process.kill(pids.keeper!, 'SIGKILL');
    await eventually(async () => assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'error'));
    await eventually(async () =>
      assert.ok(!(await allProcesses()).some(({ pid }) => pid === pids.vmm), 'the VMM goes on'),
    );
    await thaw.sdk.sandboxes.resume(id);
    assert.equal(await thaw.sh(id, 'cat /dev/shm/mark'), 'kept\n');
    await thaw.destroyAll();
    await thaw.sdk.snapshots.delete('frozen');
  });
});
