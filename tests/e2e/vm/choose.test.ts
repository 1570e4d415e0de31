/** Which VMM a host gets, and why. */
import assert from 'node:assert/strict';
import { chmod, copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, it } from 'node:test';
import { choose, chooseVmm, type Wish } from '../../../packages/host-agent/src/vmm/choose.ts';
import { FIRECRACKER, needsFake } from './firecracker.ts';

const KERNEL = '/var/cache/thaw/guest/vmlinux';

let folder: string;
before(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'thaw-choose-'));
});
after(() => rm(folder, { recursive: true, force: true }));

const file = (name: string) => path.join(folder, name);

async function script(name: string, text: string): Promise<string> {
  await writeFile(file(name), `#!/bin/sh\n${text}\n`);
  await chmod(file(name), 0o755);
  return file(name);
}

async function wish(wanted: Wish['wanted'], firecracker: string): Promise<Wish> {
  const kernel = process.env.THAW_GUEST ? path.join(process.env.THAW_GUEST, 'vmlinux') : KERNEL;
  return { wanted, firecracker, kernel };
}

it('is Firecracker where a guest starts under it', { skip: needsFake }, async () => {
  assert.equal((await choose(await wish('auto', FIRECRACKER))).vmm, 'firecracker');
  assert.equal((await choose(await wish('firecracker', FIRECRACKER))).vmm, 'firecracker');
  assert.equal((await choose(await wish('qemu', FIRECRACKER))).vmm, 'qemu');
});

it('is QEMU elsewhere, and the reason is told', { skip: needsFake }, async () => {
  const says = (version: string) => `[ "$1" = --version ] && echo "Firecracker v${version}"`;
  const cases: [string, RegExp][] = [
    [file('nothing'), /^there is no /],
    [await script('other', 'echo "QEMU emulator version 7.2"'), /does not tell its version/],
    [await script('broken', 'exit 3'), /does not run/],
    [await script('old', says('1.7.0')), /1\.7 is too old: Thaw needs 1\.8/],
    // As a Firecracker without a working /dev/kvm.
    [await script('powerless', says('1.16.1')), /^no guest starts under /],
  ];
  for (const [firecracker, why] of cases) {
    const chosen = await choose(await wish('auto', firecracker));
    assert.equal(chosen.vmm, 'qemu');
    assert.match(chosen.why, why);
    await assert.rejects(
      choose(await wish('firecracker', firecracker)),
      (error: Error & { kind: string }) => {
        assert.equal(error.kind, 'unavailable');
        assert.match(error.message, /^THAW_VMM=firecracker: /);
        return true;
      },
    );
  }
});

it('is found out once, and anew for another program', { skip: needsFake }, async () => {
  const firecracker = file('firecracker');
  const cache = () => file('probe.json');
  await script('firecracker', '[ "$1" = --version ] && echo "Firecracker v1.16.1"');
  const asked = { ...(await wish('auto', firecracker)), cache };
  assert.equal((await choose(asked)).vmm, 'qemu');
  assert.equal(JSON.parse(await readFile(cache(), 'utf8')).works, false);
  await rm(firecracker);
  await copyFile(FIRECRACKER, firecracker);
  await chmod(firecracker, 0o755);
  assert.equal((await choose(asked)).vmm, 'firecracker');
});

it('is refused by name where it is missing, whatever new VMs get', async () => {
  const version = process.env.THAW_VERSION_DIR!;
  const programs = {
    keeper: path.join(version, 'bin/thaw-keeper'),
    pager: path.join(version, 'bin/thaw-pager'),
    blockstore: path.join(version, 'bin/thaw-blockstore'),
    preload: path.join(version, 'lib/libthaw_preload.so'),
    qemu: '/usr/bin/qemu-system-x86_64',
  };
  const vmms = await chooseVmm({ ...(await wish('qemu', file('nothing'))), programs });
  assert.equal(vmms.chosen.info.vmm, 'qemu');
  await assert.rejects(vmms.of('firecracker'), { kind: 'invalid_state' });
  await assert.rejects(vmms.of('xen'), { kind: 'invalid_state' });
});
