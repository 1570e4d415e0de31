/** Where one sandbox's files are on the host. */
import path from 'node:path';

export class SandboxPaths {
  readonly data: string;
  readonly run: string;

  /** `vm`: the name of its VM, if that is not the sandbox's. `folder`: of what is no sandbox yet. */
  constructor(
    roots: { data: string; run: string },
    id: string,
    vm = id,
    folder: 'sandboxes' | 'spares' = 'sandboxes',
  ) {
    this.data = path.join(roots.data, folder, id);
    this.run = runFolder(roots.run, vm);
  }

  /** What the host knows of the sandbox besides its head. */
  get record(): string {
    return path.join(this.data, 'sandbox.json');
  }

  /** What its console said until its last run ended. */
  get console(): string {
    return path.join(this.data, 'console.log');
  }

  /** What its guest said of its load, the last hours. */
  get samples(): string {
    return path.join(this.data, 'samples');
  }

  /** What a run needed first, on its way to the build that it came from. */
  get workset(): string {
    return path.join(this.data, 'workset');
  }

  get disk(): string {
    return path.join(this.data, 'disk');
  }

  /** The writable layer of a run and the blocks in it that became zero. */
  top(name: string): { data: string; zeros: string } {
    return { data: path.join(this.disk, `${name}.top`), zeros: path.join(this.disk, `${name}.zeros`) };
  }

  /** Of a VMM that writes memory and device state by itself; on the file system of the builds. */
  get snapshot(): string {
    return path.join(this.data, 'snapshot');
  }

  /** What a restarted host agent needs to take the running VM over. */
  get machine(): string {
    return path.join(this.run, 'machine.json');
  }

  /** The folder that the VMM's user owns: sockets of the VMM and of the pager. */
  get vmm(): string {
    return path.join(this.run, 'vmm');
  }

  get pagerState(): string {
    return path.join(this.run, 'pager.state');
  }
}

/** Kernel and initramfs that VMs booted with, by what they contain: a restore needs the same. */
export function bootFiles(
  data: string,
  kernel: string,
  initramfs: string,
): { kernel: string; initramfs: string } {
  const directory = path.join(data, 'boot');
  return {
    kernel: path.join(directory, `vmlinux-${kernel.slice(0, 32)}`),
    initramfs: path.join(directory, `initramfs-${initramfs.slice(0, 32)}`),
  };
}

/** Of a VM that waits to become a sandbox. */
export function sparePaths(roots: { data: string; run: string }, id: string): SandboxPaths {
  return new SandboxPaths(roots, id, id, 'spares');
}

export function sparesDir(data: string): string {
  return path.join(data, 'spares');
}

/** Of a VM, by its name: its keeper's sockets and state. */
export function runFolder(run: string, vm: string): string {
  return path.join(sandboxesDir(run), vm);
}

export function sandboxesDir(root: string): string {
  return path.join(root, 'sandboxes');
}
