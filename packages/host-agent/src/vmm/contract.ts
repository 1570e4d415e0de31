/** What every VMM must do; run against each implementation, the fake included. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { createHeader, parseHeader, parseRuns, serialiseHeader, storedBytes } from '@thaw/snapshot';
import type { Backend, BootSpec, Chain, Layer, RestoreSpec, Vm, VmmKit } from './vmm.ts';

const BLOCK = 4096;

/** One implementation, ready to start VMs. Everything ends with the world. */
export interface World<Kit extends VmmKit = VmmKit> extends AsyncDisposable {
  kit: Kit;
  /** A folder for files of the test. */
  dir: string;
  boot(): Promise<BootSpec>;
  /** A second sandbox that starts from `build`. */
  restore(build: Build, backend?: Backend): Promise<RestoreSpec>;
}

/** A sealed generation: memory, disk and device state of one instant. */
export interface Build {
  vmstate: string;
  memory: Chain;
  disk: Chain;
}

/** Dumps and rotates a stopped VM into a build in `dir`. `top` is the layer it writes to, `next` the one after. */
export async function seal(
  dir: string,
  vm: Vm,
  { top, next, parent, sizes }: SealOptions,
): Promise<{ build: Build; storedBytes: number; vmstateBytes: number }> {
  const id = randomUUID();
  const file = (name: string) => path.join(dir, `${id}.${name}`);
  const saved = await vm.save(file('vmstate'));
  const dumped = await vm.memory.dump({ memfile: file('memfile'), runs: file('memfile.runs') });
  const rotated = await vm.disk.rotate(next, file('rootfs.runs'));
  const layout = { memfile: dumped.layout, rootfs: 'sparse' } as const;
  const extend = async (kind: 'memfile' | 'rootfs', reported: number, data: string): Promise<Chain> => {
    const below = kind === 'memfile' ? parent.memory : parent.disk;
    const runs = parseRuns(await readFile(file(`${kind}.runs`)));
    assert.equal(storedBytes(runs), reported);
    const header = createHeader({
      build: id,
      size: kind === 'memfile' ? sizes.memory : sizes.disk,
      blockSize: BLOCK,
      runs,
      layout: layout[kind],
      parent: below === undefined ? undefined : parseHeader(await readFile(below.header)),
    });
    await writeFile(file(`${kind}.header`), serialiseHeader(header));
    return { header: file(`${kind}.header`), builds: { ...below?.builds, [id]: data } };
  };
  const memory = await extend('memfile', dumped.storedBytes, file('memfile'));
  const disk = await extend('rootfs', rotated.storedBytes, top.data);
  const { size } = await stat(file('memfile'));
  assert.equal(size, dumped.layout === 'packed' ? dumped.storedBytes : sizes.memory);
  const build = { vmstate: file('vmstate'), memory, disk };
  return { build, storedBytes: dumped.storedBytes, vmstateBytes: saved.vmstateBytes };
}

export interface SealOptions {
  top: Layer;
  next: Layer;
  /** What the VM was started from. */
  parent: { memory?: Chain; disk?: Chain };
  sizes: { memory: number; disk: number };
}

function sealOptions(dir: string, spec: BootSpec | RestoreSpec, top = spec.disk.top): SealOptions {
  const name = path.join(dir, randomUUID());
  return {
    top,
    next: { data: `${name}.data`, zeros: `${name}.zeros` },
    parent: { memory: spec.kind === 'restore' ? spec.memory : undefined, disk: spec.disk.base },
    sizes: { memory: spec.memoryMb * 2 ** 20, disk: spec.disk.sizeBytes },
  };
}

/** A VM that was booted, sealed and ended. */
async function sealOnce(world: World): Promise<Build> {
  const spec = await world.boot();
  const vm = await world.kit.boot(spec);
  await vm.stop();
  const { build } = await seal(world.dir, vm, sealOptions(world.dir, spec));
  await vm.kill();
  return build;
}

export function vmmContract(name: string, open: () => Promise<World>): void {
  describe(`${name} does what a VMM must`, () => {
    it('stops, saves, goes on, saves again and is killed', async () => {
      await using world = await open();
      const vm = await world.kit.boot(await world.boot());
      assert.deepEqual(vm.info, world.kit.info);
      await vm.stop();
      const file = path.join(world.dir, 'state');
      const saved = await vm.save(file);
      assert.equal((await stat(file)).size, saved.vmstateBytes);
      await assert.rejects(vm.save(file), 'a file is never overwritten');
      await vm.goOn();
      await vm.stop();
      await vm.save(`${file}2`);
      await vm.goOn();
      await vm.kill();
      await vm.gone;
      await assert.rejects(vm.stop());
      await vm.kill();
    });

    it('restores what it saved, twice, on each of its backends and on no other', async () => {
      await using world = await open();
      const build = await sealOnce(world);
      for (const backend of ['uffd', 'mapped'] as const) {
        for (let round = 0; round < 2; round++) {
          const spec = await world.restore(build, backend);
          if (!world.kit.backends.includes(backend)) {
            await assert.rejects(world.kit.restore(spec), { kind: 'internal' });
            continue;
          }
          const restored = await world.kit.restore(spec);
          assert.equal(restored.memory.backend, backend);
          await restored.stop();
          await restored.goOn();
          await restored.kill();
        }
      }
    });

    it('seals a restored VM against what it came from, on each backend', async () => {
      await using world = await open();
      const build = await sealOnce(world);
      for (const backend of world.kit.backends) {
        const spec = await world.restore(build, backend);
        const vm = await world.kit.restore(spec);
        await vm.stop();
        const options = sealOptions(world.dir, spec);
        const first = await seal(world.dir, vm, options);
        await vm.memory.commit(first.build.memory);
        await vm.disk.commit(first.build.disk);
        const again = {
          memfile: path.join(world.dir, `${backend}.again`),
          runs: `${world.dir}/${backend}.runs`,
        };
        assert.equal((await vm.memory.dump(again)).storedBytes, 0, 'it stood still');
        await vm.memory.abort();
        await vm.kill();
        const heir = await world.kit.restore(await world.restore(first.build));
        await heir.kill();
      }
    });

    it('keeps the dirty set until a commit', async () => {
      await using world = await open();
      const spec = await world.boot();
      const vm = await world.kit.boot(spec);
      await vm.stop();
      const dump = (name: string) =>
        vm.memory.dump({ memfile: path.join(world.dir, name), runs: path.join(world.dir, `${name}.runs`) });
      const first = await dump('first');
      await vm.memory.abort();
      assert.equal((await dump('second')).storedBytes, first.storedBytes);
      await vm.memory.abort();
      const options = sealOptions(world.dir, spec);
      const { build } = await seal(world.dir, vm, options);
      await vm.memory.commit(build.memory);
      await vm.disk.commit(build.disk);
      assert.equal((await dump('third')).storedBytes, 0);
      const again = sealOptions(world.dir, spec, options.next);
      const rotated = await vm.disk.rotate(again.next, path.join(world.dir, 'again.runs'));
      assert.deepEqual(rotated, { storedBytes: 0, zeroBytes: 0 });
      await vm.disk.abort();
      await vm.goOn();
    });

    it('starts in what was made ahead, or not at all', async () => {
      await using world = await open();
      const { kit } = world;
      if (kit.prepare === undefined) return;
      const booting = await world.boot();
      await kit.prepare(booting.keeper, booting);
      const vm = await kit.boot({ ...booting, ahead: 'helpers' });
      await vm.stop();
      const { build } = await seal(world.dir, vm, sealOptions(world.dir, booting));
      await vm.kill();
      for (const backend of kit.backends) {
        const spec = await world.restore(build, backend);
        await kit.prepare(spec.keeper, spec);
        const restored = await kit.restore({ ...spec, ahead: 'helpers' });
        await restored.stop();
        await restored.kill();
      }
      const ahead = async (vmstate: string, backend: Backend = 'uffd', moreDisk = 0) => {
        const spec = await world.restore({ ...build, vmstate }, backend);
        const { memory, ...size } = spec;
        const diskBytes = spec.disk.sizeBytes + moreDisk;
        await kit.prepare!(spec.keeper, spec);
        await kit.startAhead!(spec.keeper, { ...size, diskBytes, ...(backend === 'mapped' && { memory }) });
        const { roles } = await spec.keeper.status();
        assert.equal(roles.vmm?.running, true);
        return { pid: roles.vmm.pid, spec: { ...spec, ahead: 'vmm' as const } };
      };
      if (kit.startAhead === undefined) return;
      const { pid, spec } = await ahead(build.vmstate);
      const waited = await kit.restore(spec);
      assert.equal(waited.pid, pid);
      await waited.stop();
      const sealed = await seal(world.dir, waited, sealOptions(world.dir, spec));
      await waited.kill();
      const heir = await kit.restore(await world.restore(sealed.build));
      await heir.kill();
      if (kit.backends.includes('mapped')) {
        const { pid, spec } = await ahead(build.vmstate, 'mapped');
        const clone = await kit.restore(spec);
        assert.equal(clone.pid, pid);
        await clone.kill();
      }
      // Of another size than it was started for: it never runs.
      const { spec: wrong } = await ahead(build.vmstate, 'uffd', 4096);
      await assert.rejects(kit.restore(wrong), { kind: 'internal' });
      const nonsense = path.join(world.dir, 'no-state');
      await writeFile(nonsense, 'nonsense');
      for (const vmstate of [nonsense, path.join(world.dir, 'no-file')]) {
        const { spec } = await ahead(vmstate);
        await assert.rejects(kit.restore(spec), { kind: 'internal' });
        const { roles } = await spec.keeper.status();
        assert.ok(Object.values(roles).every(({ running }) => !running));
      }
      // One that waits ends when it is told to.
      const { spec: other } = await ahead(build.vmstate);
      await other.keeper.signal('vmm', 'KILL');
      await other.keeper.wait('vmm', 5000);
    });

    it('refuses a device state that is none, and leaves nothing running', async () => {
      await using world = await open();
      const build = await sealOnce(world);
      const vmstate = path.join(world.dir, 'nonsense');
      await writeFile(vmstate, 'nonsense');
      await assert.rejects(world.kit.restore(await world.restore({ ...build, vmstate })), {
        kind: 'internal',
      });
      const missing = path.join(world.dir, 'missing');
      await assert.rejects(world.kit.restore(await world.restore({ ...build, vmstate: missing })));
    });
  });
}
