/**
 * Firecracker, pager, block store and keeper together, below the host agent's verbs. With a real Firecracker in
 * `THAW_FIRECRACKER_BIN` (and, if it needs another, a kernel in `THAW_FIRECRACKER_KERNEL`) the same runs against that.
 */
import assert from 'node:assert/strict';
import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseRuns } from '@thaw/snapshot';
import { type Build, seal, vmmContract } from '../../../packages/host-agent/src/vmm/contract.ts';
import { FirecrackerApi } from '../../../packages/host-agent/src/vmm/firecracker-api/api.ts';
import type { BootSpec, RestoreSpec, Vm } from '../../../packages/host-agent/src/vmm/vmm.ts';
import { IS_REAL, JAILER, needsFake, needsFakeGuest, noJailer } from './firecracker.ts';
import { type SandboxStage, Stage } from './stage.ts';

const NAME = IS_REAL ? 'Firecracker' : 'the fake Firecracker';
const worldOf = (jailer?: string) => async () => (await Stage.open('firecracker', jailer)).world;
vmmContract(NAME, worldOf());
if (JAILER !== undefined) vmmContract(`${NAME} in the jail of its own jailer`, worldOf(JAILER));

it('ends with its keeper, also in the jail of its own jailer', { skip: noJailer }, async () => {
  await using stage = await Stage.open('firecracker', JAILER);
  const sandbox = await stage.sandbox();
  const vm = await stage.kit.boot(await sandbox.boot());
  await sandbox.namespace.init(1);
  const status = await readFile(`/proc/${vm.pid}/status`, 'utf8');
  assert.match(status, new RegExp(`^Uid:\\s+${sandbox.uids.vmm}\\s`, 'm'));
  assert.match(status, /^CapEff:\s+0+$/m);
  const mounts = await readFile(`/proc/${vm.pid}/mountinfo`, 'utf8');
  assert.match(mounts, / \/tmp\/fc-vm .* fuse\.thaw /);
  assert.equal(mounts.split('\n').filter((line) => / (\/proc|\/sys|\/home) /.test(line)).length, 0);
  const keeper = await sandbox.keeper.status();
  process.kill(keeper.pid, 'SIGKILL');
  await vm.gone;
  for (let tries = 0; await isThere(`/proc/${vm.pid}`); tries++) {
    assert.ok(tries < 200, 'the VMM goes on');
    await sleep(10);
  }
});

async function isThere(file: string): Promise<boolean> {
  return await stat(file).then(
    () => true,
    () => false,
  );
}

/** Stops the VM and seals it, as a pause does without its commit. */
async function freeze(sandbox: SandboxStage, vm: Vm, spec: BootSpec | RestoreSpec) {
  await vm.stop();
  const sizes = { memory: spec.memoryMb * 2 ** 20, disk: spec.disk.sizeBytes };
  const parent = { memory: spec.kind === 'restore' ? spec.memory : undefined, disk: spec.disk.base };
  return await seal(sandbox.dir, vm, { top: spec.disk.top, next: sandbox.layer(), parent, sizes });
}

/** A VM that booted, was given `script` to run and was sealed. */
async function sealed(stage: Stage, script?: string): Promise<{ build: Build; storedBytes: number }> {
  const sandbox = await stage.sandbox();
  const spec = await sandbox.boot();
  const vm = await stage.kit.boot(spec);
  await sandbox.namespace.init(1);
  if (script !== undefined) await sandbox.namespace.sh(script);
  const result = await freeze(sandbox, vm, spec);
  await vm.kill();
  return result;
}

/** One that goes on from it. */
async function restored(stage: Stage, build: Build) {
  const sandbox = await stage.sandbox();
  const spec = await sandbox.restore(build);
  const vm = await stage.kit.restore(spec);
  await sandbox.namespace.init(2);
  return { sandbox, spec, vm };
}

const MIB = 2 ** 20;

describe('a VM under Firecracker', { skip: needsFakeGuest }, () => {
  it('stores what is not zero at first, and then what has changed, where it lies', async () => {
    await using stage = await Stage.open('firecracker');
    const { build, storedBytes } = await sealed(stage, 'fill 10240 1024 7 && zero 20480 1024');
    const [memfile] = Object.values(build.memory.builds);
    const { size, blocks } = await stat(memfile!);
    assert.equal(size, 256 * MIB, 'sparse: each page at its own offset');
    assert.ok(storedBytes >= 4 * MIB && storedBytes < 64 * MIB, `${storedBytes} bytes`);
    assert.ok(blocks * 512 < storedBytes + MIB, 'zeros take no room');
    const { sandbox, spec, vm } = await restored(stage, build);
    await sandbox.namespace.sh('fill 10244 16 9 && zero 10344 16');
    const before = await vm.memory.stats();
    const next = await freeze(sandbox, vm, spec);
    assert.ok(next.storedBytes < 2 * MIB, `${next.storedBytes} bytes`);
    const runs = parseRuns(await readFile(next.build.memory.header.replace('.header', '.runs')));
    const zero = runs.filter(({ kind }) => kind === 'zero');
    assert.ok(zero.some(({ offset, length }) => offset <= 10344 * 4096 && offset + length >= 10360 * 4096));
    const after = await vm.memory.stats();
    assert.equal(after.pagesFaulted, before.pagesFaulted, 'nothing was brought in for the seal');
    assert.ok(after.pagesFaulted * 4096 < storedBytes, 'nor was all of it by the guest');
    await vm.kill();
  });

  it('keeps what was not committed, and writes it with the next seal', async () => {
    await using stage = await Stage.open('firecracker');
    const { build } = await sealed(stage, 'fill 10240 64 1');
    const { sandbox, spec, vm } = await restored(stage, build);
    const sums = 'sum 10240 64; sum 12000 8; sum 13000 8';
    await sandbox.namespace.sh('fill 12000 8 2 && zero 10244 8');
    await freeze(sandbox, vm, spec);
    await vm.memory.abort();
    await vm.disk.abort();
    await vm.goOn();
    await sandbox.namespace.sh('fill 13000 8 3 && zero 12004 2');
    const expected = await sandbox.namespace.sh(sums);
    const second = await freeze(sandbox, vm, spec);
    // Committed, it goes on: the next seal is against that build.
    await vm.memory.commit(second.build.memory);
    await vm.goOn();
    assert.equal(await sandbox.namespace.sh(sums), expected);
    await vm.kill();
    const clone = await stage.sandbox();
    await stage.kit.restore(await clone.restore(second.build));
    await clone.namespace.init(3);
    assert.equal(await clone.namespace.sh(sums), expected);
  });

  it('goes on in two clones at once, each with its own memory', async () => {
    await using stage = await Stage.open('firecracker');
    const { build } = await sealed(stage, 'fill 10240 64 1');
    const clones = await Promise.all([stage.sandbox(), stage.sandbox()]);
    await Promise.all(clones.map(async (clone) => stage.kit.restore(await clone.restore(build))));
    const sums = await Promise.all(
      clones.map(async (clone, index) => {
        await clone.namespace.init(2);
        await clone.namespace.sh(`fill 11000 4 ${index}`);
        return clone.namespace.sh('sum 10240 64; sum 11000 4');
      }),
    );
    const [first, second] = sums.map((text) => text.split('\n'));
    assert.equal(first![0], second![0]);
    assert.notEqual(first![1], second![1]);
  });

  it('gives memory back through its balloon, and a clone reads zeros there', async () => {
    await using stage = await Stage.open('firecracker');
    const { build } = await sealed(stage);
    const { sandbox, spec, vm } = await restored(stage, build);
    const api = await FirecrackerApi.open(path.join(sandbox.keeper.runDir, 'vmm/api.sock'), 2000);
    await api.call({ method: 'PATCH', path: '/balloon', body: { amount_mib: 8 } });
    api.close();
    await sandbox.namespace.sh('ticks');
    assert.ok((await vm.memory.stats()).removedPages >= 2048 - 64);
    const next = await freeze(sandbox, vm, spec);
    await vm.kill();
    const clone = await stage.sandbox();
    await stage.kit.restore(await clone.restore(next.build));
    await clone.namespace.init(3);
    await clone.namespace.sh('ticks');
  });

  it('is served by another pager when its own dies', async () => {
    await using stage = await Stage.open('firecracker');
    const { build } = await sealed(stage, 'fill 10240 64 1');
    const { sandbox, spec } = await restored(stage, build);
    const gone = sandbox.keeper.gone('pager');
    await sandbox.keeper.signal('pager', 'KILL');
    await gone;
    const answer = sandbox.namespace.sh('sum 10240 64');
    await stage.kit.replacePager(sandbox.keeper, spec);
    assert.match(await answer, /\S/);
  });

  it('is found again by another host agent, in the middle of a seal', async () => {
    await using stage = await Stage.open('firecracker');
    const { build } = await sealed(stage, 'fill 10240 64 1');
    const { sandbox, spec, vm } = await restored(stage, build);
    await sandbox.namespace.sh('fill 12000 8 2');
    const expected = await sandbox.namespace.sh('sum 12000 8');
    await freeze(sandbox, vm, spec);
    const again = await stage.kit.attach(sandbox.keeper, spec);
    await again.memory.abort();
    await again.disk.abort();
    await again.goOn();
    await sandbox.namespace.sh('fill 13000 8 3');
    const { build: next } = await freeze(sandbox, again, spec);
    await again.kill();
    const clone = await stage.sandbox();
    await stage.kit.restore(await clone.restore(next));
    await clone.namespace.init(3);
    assert.equal(await clone.namespace.sh('sum 12000 8'), expected);
    await assert.rejects(stage.kit.attach(sandbox.keeper, spec), { kind: 'unavailable' });
  });
});

/** What the process of the VM does instead of what it should, and what becomes of the start. */
const FAULTS: readonly { name: string; faults: object; kind: string }[] = [
  { name: 'ends while it loads', faults: { die_in_load: true }, kind: 'internal' },
  // Not even its exit code says that anything went wrong.
  { name: 'ends before it is asked', faults: { exit_after_ms: 1, exit_code: 0 }, kind: 'internal' },
];

describe('a start that fails leaves nothing running', { skip: needsFake }, () => {
  for (const { name, faults, kind } of FAULTS) {
    it(`where Firecracker ${name}`, async () => {
      await using stage = await Stage.open('firecracker');
      const { build } = await sealed(stage);
      const sandbox = await stage.sandbox();
      await writeFile(await sandbox.vmmFile('faults.json'), JSON.stringify(faults));
      await assert.rejects(stage.kit.restore(await sandbox.restore(build)), { kind });
      const { roles } = await sandbox.keeper.status();
      for (const role of ['vmm', 'pager', 'blockstore']) assert.notEqual(roles[role]?.running, true, role);
      // Nothing of it is in the way of the next one.
      const next = await stage.sandbox();
      await stage.kit.restore(await next.restore(build));
      await next.namespace.init(2);
    });
  }
});
