import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { it } from 'node:test';
import type { Keeper } from '../../keeper/keeper.ts';
import { type Build, seal, vmmContract, type World } from '../contract.ts';
import type { Backend, BootSpec } from '../vmm.ts';
import { FakeKit } from './kit.ts';

async function open(kit = new FakeKit()): Promise<World<FakeKit>> {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'thaw-fake-'));
  const boot = async (): Promise<BootSpec> => {
    const name = path.join(dir, randomUUID());
    return {
      kind: 'boot',
      keeper: {} as Keeper,
      uids: { vmm: 1, pager: 2, blockstore: 3 },
      netns: '',
      tapName: 'tap0',
      vcpus: 1,
      memoryMb: 1,
      kernel: '',
      initramfs: '',
      cmdline: [],
      disk: { sizeBytes: 2 ** 20, top: { data: `${name}.data`, zeros: `${name}.zeros` } },
      tracker: 'auto',
      pagerState: '',
      snapshotDir: '',
    };
  };
  return {
    kit,
    dir,
    boot,
    async restore(build: Build, backend: Backend = 'uffd') {
      const spec = await boot();
      const { memory, vmstate } = build;
      const disk = { ...spec.disk, base: build.disk };
      return { ...spec, kind: 'restore', memory, backend, vmstate, disk };
    },
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true }),
  };
}

vmmContract('the fake', () => open());

it('the fake keeps memory and disk through a seal', async () => {
  await using world = await open();
  const spec = await world.boot();
  const vm = await world.kit.boot(spec);
  const block = (byte: number) => Buffer.alloc(4096, byte);
  vm.memory.write(8192, block(7));
  vm.memory.write(4096, block(0));
  vm.disk.write(0, block(9));
  await vm.stop();
  const next = { data: path.join(world.dir, 'next'), zeros: path.join(world.dir, 'zeros') };
  const sizes = { memory: 2 ** 20, disk: 2 ** 20 };
  const sealed = await seal(world.dir, vm, { top: spec.disk.top, next, parent: {}, sizes });
  assert.equal(sealed.storedBytes, 4096);
  const restored = await world.kit.restore(await world.restore(sealed.build));
  assert.deepEqual(await restored.memory.pages.read(8192), block(7));
  assert.deepEqual(await restored.memory.pages.read(4096), block(0));
  assert.deepEqual(await restored.disk.read(0), block(9));
});

it('a fault hits exactly the step it names', async () => {
  const kit = new FakeKit((label) => {
    if (label === 'memory:dump') throw new Error('no space');
  });
  await using world = await open(kit);
  const vm = await world.kit.boot(await world.boot());
  await vm.stop();
  await vm.save(path.join(world.dir, 'state'));
  await assert.rejects(vm.memory.dump({ memfile: '/nowhere', runs: '/nowhere' }), /no space/);
  await vm.goOn();
});
