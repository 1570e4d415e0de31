/** Kernel and initramfs on this host: those new VMs boot with, and those that older snapshots need. */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { access, chmod, copyFile, link, mkdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import type { Machine } from '@thaw/snapshot';
import { bootFiles } from '../sandbox/paths.ts';

export interface BootFiles {
  /** SHA-256 in hex. */
  kernelSha: string;
  initramfsSha: string;
  kernel: string;
  initramfs: string;
}

async function sha256(file: string): Promise<string> {
  const hash: Hash = createHash('sha256');
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

async function keep(source: string, target: string): Promise<void> {
  const present = await access(target).then(
    () => true,
    () => false,
  );
  if (present) return;
  const temporary = `${target}.new`;
  await rm(temporary, { force: true });
  await link(source, temporary).catch(() => copyFile(source, temporary));
  await chmod(temporary, 0o644);
  await rename(temporary, target);
}

/** Keeps the installed kernel and initramfs under `data`, so that snapshots made with them outlive an upgrade. */
export async function keepBootFiles(data: string, guestDir: string): Promise<BootFiles> {
  const source = { kernel: path.join(guestDir, 'vmlinux'), initramfs: path.join(guestDir, 'initramfs.cpio') };
  const [kernelSha, initramfsSha] = await Promise.all([sha256(source.kernel), sha256(source.initramfs)]);
  const kept = bootFiles(data, kernelSha, initramfsSha);
  await mkdir(path.dirname(kept.kernel), { recursive: true, mode: 0o700 });
  await keep(source.kernel, kept.kernel);
  await keep(source.initramfs, kept.initramfs);
  return { kernelSha, initramfsSha, ...kept };
}

/** The files that a snapshot's machine booted with. Throws `invalid_state` when this host has lost them. */
export async function findBootFiles(data: string, machine: Machine): Promise<BootFiles> {
  const found = bootFiles(data, machine.kernel, machine.guest_agent);
  for (const file of [found.kernel, found.initramfs]) {
    await access(file).catch((cause) => {
      throw new ThawError(
        'invalid_state',
        'this host no longer has the kernel that the snapshot was made with',
        { cause },
      );
    });
  }
  return { kernelSha: machine.kernel, initramfsSha: machine.guest_agent, ...found };
}
