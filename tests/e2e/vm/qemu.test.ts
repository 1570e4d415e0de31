/** QEMU, pager, block store, keeper, preload library and guest together, below the host agent's verbs. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../../packages/host-agent/src/os/run.ts';
import { type Build, seal, vmmContract } from '../../../packages/host-agent/src/vmm/contract.ts';
import { Pager } from '../../../packages/host-agent/src/vmm/memory.ts';
import { qemuKit } from '../../../packages/host-agent/src/vmm/qemu/kit.ts';
import type { BootSpec, Layer, RestoreSpec, Vm } from '../../../packages/host-agent/src/vmm/vmm.ts';
import { type SandboxStage, Stage } from './stage.ts';

vmmContract('QEMU', async () => (await Stage.open()).world);

it('an accelerator is chosen by starting a kernel', async () => {
  await using stage = await Stage.open();
  const probe = { kernel: stage.kernel, cache: path.join(stage.dir, 'accelerator.json') };
  const options = { binaries: stage.binaries, accelerator: 'auto' as const, probe };
  const { info } = await qemuKit(options);
  assert.deepEqual((await qemuKit(options)).info.accelerator, info.accelerator);
  assert.equal(info.isolation, info.accelerator === 'kvm' ? 'hardware-vm' : 'emulated');
  assert.match(info.version, /^\d+\.\d+$/);
});

/** As a pause does it, without the commit. */
async function freeze(
  sandbox: SandboxStage,
  vm: Vm,
  spec: BootSpec | RestoreSpec,
  top: Layer,
): Promise<Build> {
  assert.equal(await sandbox.namespace.prepare(), 'frozen');
  await vm.disk.flush();
  await vm.stop();
  const sizes = { memory: spec.memoryMb * 2 ** 20, disk: spec.disk.sizeBytes };
  const parent = { memory: spec.kind === 'restore' ? spec.memory : undefined, disk: spec.disk.base };
  return (await seal(sandbox.dir, vm, { top, next: sandbox.layer(), parent, sizes })).build;
}

for (const tracker of ['scan', 'compare'] as const) {
  describe(`a VM with the tracker ${tracker}`, () => {
    it('goes on where it was, in another namespace, for three generations', async () => {
      await using stage = await Stage.open();
      const first = await stage.sandbox();
      let spec: BootSpec | RestoreSpec = await first.boot(tracker);
      let vm = await stage.kit.boot(spec);
      let sandbox = first;
      await first.namespace.init(1);
      await first.namespace.sh(`
        echo hello > /root/file
        head -c 8000000 /dev/urandom > /dev/shm/random
        md5sum /dev/shm/random > /dev/shm/sum
        (i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.02; done) > /dev/null 2>&1 &`);
      // Between the truncation and the write of a count the file is empty.
      const count = async () =>
        Number(
          await sandbox.namespace.sh(
            'until [ -s /dev/shm/count ] && n=$(cat /dev/shm/count) && [ -n "$n" ]; do :; done; echo $n',
          ),
        );
      for (let generation = 0; generation < 3; generation++) {
        const before = await count();
        const build = await freeze(sandbox, vm, spec, spec.disk.top);
        await vm.kill();
        await sandbox.keeper.end();
        sandbox = await stage.sandbox();
        spec = await sandbox.restore(build, tracker);
        vm = await stage.kit.restore(spec);
        await sandbox.namespace.init(generation + 2);
        assert.equal(
          await sandbox.namespace.sh('cd /; md5sum -c --quiet /dev/shm/sum; cat /root/file'),
          'hello\n',
        );
        assert.ok((await count()) >= before, 'the counter started again');
        const clock = Number(await sandbox.namespace.sh('date +%s'));
        assert.ok(Math.abs(clock - Date.now() / 1000) < 2, `the clock is ${clock}`);
        await sandbox.namespace.sh(`echo ${generation} >> /root/generations; sync`);
        const stats = await vm.memory.stats();
        assert.ok(stats.faults > 0 && stats.pagesFaulted * 4096 < MEMORY_BYTES, JSON.stringify(stats));
      }
      assert.equal(await sandbox.namespace.sh('cat /root/generations'), '0\n1\n2\n');
    });
  });
}

for (const tracker of ['scan', 'compare'] as const) {
  describe(`clones of mapped memory with the tracker ${tracker}`, () => {
    it('have the template and what they wrote, through seals and the loss of a pager', async () => {
      await using stage = await Stage.open();
      const source = await stage.sandbox();
      const spec = await source.boot(tracker);
      const vm = await stage.kit.boot(spec);
      await source.namespace.init(1);
      await source.namespace.sh(`
        head -c 8000000 /dev/urandom > /dev/shm/random
        md5sum /dev/shm/random > /dev/shm/sum; echo template > /dev/shm/whose`);
      const template = await freeze(source, vm, spec, spec.disk.top);
      await vm.kill();
      const before = await readFiles(template);

      const clones = [await stage.sandbox(), await stage.sandbox()] as const;
      const specs = [
        await clones[0].restore(template, tracker, 'mapped'),
        await clones[1].restore(template, tracker, 'mapped'),
      ] as const;
      const vms = [await stage.kit.restore(specs[0]), await stage.kit.restore(specs[1])] as const;
      const [first, second] = clones;
      const whole = async ({ namespace }: SandboxStage, whose: string) =>
        assert.equal(
          await namespace.sh('cd /; md5sum -c --quiet /dev/shm/sum; cat /dev/shm/whose'),
          `${whose}\n`,
        );
      for (const [index, { namespace }] of clones.entries()) {
        await namespace.init(index + 2);
        await whole(clones[index]!, 'template');
        await namespace.sh(`echo ${index} > /dev/shm/whose; rm -f /dev/shm/none; sync`);
      }
      await whole(first, '0');
      await whole(second, '1');
      const stats = await vms[0].memory.stats();
      assert.equal(stats.faults, 0, 'the pager serves nothing');
      assert.ok(stats.residentBytes < MEMORY_BYTES / 4, JSON.stringify(stats));

      // A live seal, and a second one of what changed since.
      const seal1 = await freeze(first, vms[0], specs[0], specs[0].disk.top);
      await vms[0].memory.commit(seal1.memory);
      await vms[0].disk.abort();
      await vms[0].goOn();
      await first.namespace.thaw();
      await first.namespace.sh(
        'echo later > /dev/shm/whose; head -c 300000 /dev/urandom > /dev/shm/own; md5sum /dev/shm/own > /dev/shm/own.sum',
      );

      // Nobody waits for a pager, and the next one knows what was written.
      const gone = first.keeper.gone('pager');
      await first.keeper.signal('pager', 'KILL');
      await gone;
      await whole(first, 'later');
      const { uids, memoryMb, pagerState } = specs[0];
      await stage.kit.replacePager(first.keeper, {
        uids,
        memoryMb,
        pagerState,
        tracker,
        memory: seal1.memory,
      });
      assert.equal((await Pager.attach(first.keeper)).backend, 'mapped');
      const below = { ...specs[0], memory: seal1.memory };
      const seal2 = await freeze(first, vms[0], below, specs[0].disk.top);
      await vms[0].kill();

      const heir = await stage.sandbox();
      await stage.kit.restore(await heir.restore(seal2, tracker));
      await heir.namespace.init(9);
      await whole(heir, 'later');
      assert.equal(await heir.namespace.sh('cd /; md5sum -c /dev/shm/own.sum'), '/dev/shm/own: OK\n');
      await whole(second, '1');
      assert.deepEqual(await readFiles(template), before, 'the template has changed');
    });
  });
}

/** What a build stores of its memory. */
async function readFiles({ memory }: Build): Promise<Buffer[]> {
  return Promise.all([memory.header, ...Object.values(memory.builds)].map((file) => readFile(file)));
}

const MEMORY_BYTES = 256 * 2 ** 20;

describe('a VM', () => {
  it('goes on after a seal that failed, and the next one misses nothing', async () => {
    await using stage = await Stage.open();
    const sandbox = await stage.sandbox();
    const spec = await sandbox.boot();
    const vm = await stage.kit.boot(spec);
    await sandbox.namespace.init(1);
    await sandbox.namespace.sh('echo one > /root/a; head -c 4000000 /dev/urandom > /dev/shm/a; sync');
    await freeze(sandbox, vm, spec, spec.disk.top);
    await vm.memory.abort();
    await vm.disk.abort();
    await vm.goOn();
    await sandbox.namespace.thaw();
    await sandbox.namespace.sh('echo two > /root/b; md5sum /dev/shm/a > /dev/shm/sum');
    const build = await freeze(sandbox, vm, spec, spec.disk.top);
    await vm.kill();
    const second = await stage.sandbox();
    await stage.kit.restore(await second.restore(build));
    await second.namespace.init(2);
    assert.equal(
      await second.namespace.sh('cat /root/a /root/b; md5sum -c --quiet /dev/shm/sum'),
      'one\ntwo\n',
    );
  });

  it('runs without privileges, in its jail, and the disk keeps its path', async () => {
    await using stage = await Stage.open();
    const sandbox = await stage.sandbox();
    const vm = await stage.kit.boot(await sandbox.boot());
    const status = await readFile(`/proc/${vm.pid}/status`, 'utf8');
    const line = (name: string) => new RegExp(`^${name}:[ \\t]*(.*)$`, 'm').exec(status)?.[1];
    assert.equal(line('CapEff'), '0000000000000000');
    assert.equal(line('CapBnd'), '0000000000000000');
    assert.equal(line('NoNewPrivs'), '1');
    assert.equal(line('Seccomp'), '2');
    assert.equal(line('Groups'), '');
    assert.equal(line('Uid')?.split('\t')[1], String(sandbox.uids.vmm));
    const mounts = await readFile(`/proc/${vm.pid}/mountinfo`, 'utf8');
    assert.match(mounts, / \/tmp\/fc-vm .* fuse\.thaw /);
    assert.doesNotMatch(await readFile('/proc/self/mountinfo', 'utf8'), /fuse\.thaw/);
  });

  it('does not start when the preload library is not loaded', async () => {
    await using stage = await Stage.open();
    const { binaries, kit } = stage;
    const sandbox = await stage.sandbox();
    const { start } = await import('../../../packages/host-agent/src/vmm/qemu/start.ts');
    const broken = { ...binaries, preload: '/etc/hostname' };
    await assert.rejects(start(broken, kit.info, await sandbox.boot()), { kind: 'internal' });
    const { roles } = await sandbox.keeper.status();
    assert.equal(roles.vmm?.running, false);
  });

  it('starts with a disk larger than its image', async () => {
    await using stage = await Stage.open();
    const sandbox = await stage.sandbox();
    const spec = await sandbox.boot();
    await stage.kit.boot({ ...spec, disk: { ...spec.disk, sizeBytes: 4 * 2 ** 30, grow: true } });
    await sandbox.namespace.init(1);
    const size = Number(await sandbox.namespace.sh('df -B1 --output=size / | tail -1'));
    assert.ok(size > 3.8 * 2 ** 30, `${size} bytes`);
  });

  it('is found again by another host agent', async () => {
    await using stage = await Stage.open();
    const sandbox = await stage.sandbox();
    const spec = await sandbox.boot();
    // The first host agent's end closes its connections and nothing else.
    const program = fileURLToPath(new URL('./first-agent.ts', import.meta.url));
    const file = path.join(sandbox.dir, 'spec.json');
    const { keeper: _, ...rest } = spec;
    const input = { binaries: stage.binaries, runDir: sandbox.keeper.runDir, spec: rest };
    await writeFile(file, JSON.stringify(input));
    await run([process.execPath, program, file]);
    const vm = await stage.kit.attach(sandbox.keeper, spec);
    await sandbox.namespace.init(1);
    const build = await freeze(sandbox, vm, spec, spec.disk.top);
    await vm.memory.commit(build.memory);
    await vm.disk.commit(build.disk);
    await vm.goOn();
    await sandbox.namespace.thaw();
    assert.equal(await sandbox.namespace.sh('echo here'), 'here\n');
    await vm.kill();
    assert.deepEqual(await vm.gone, { code: null, signal: 9 });
    await assert.rejects(stage.kit.attach(sandbox.keeper, spec), { kind: 'unavailable' });
  });

  it('tells how its VMM ended', async () => {
    await using stage = await Stage.open();
    const sandbox = await stage.sandbox();
    const vm = await stage.kit.boot(await sandbox.boot());
    await sandbox.keeper.signal('vmm', 'KILL');
    assert.deepEqual(await vm.gone, { code: null, signal: 9 });
  });
});
