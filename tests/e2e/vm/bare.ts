/** A Firecracker without jail, keeper or block store, in a folder and a network namespace of its own, driven by its API alone. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { run } from '../../../packages/host-agent/src/os/run.ts';
import { KERNEL_PARAMETERS } from '../../../packages/host-agent/src/vmm/cmdline.ts';
import { FirecrackerApi, put } from '../../../packages/host-agent/src/vmm/firecracker-api/api.ts';
import { FIRECRACKER, IS_REAL } from './firecracker.ts';
import { Namespace } from './namespace.ts';
import { MEMORY_MB, type Stage } from './stage.ts';

const DISK_BYTES = 16 * 2 ** 20;

export class Bare implements AsyncDisposable {
  readonly api: FirecrackerApi;
  readonly dir: string;
  readonly #child: ChildProcess;
  readonly #namespace: Namespace;

  private constructor(dir: string, api: FirecrackerApi, child: ChildProcess, namespace: Namespace) {
    this.dir = dir;
    this.api = api;
    this.#child = child;
    this.#namespace = namespace;
  }

  /** A process that was asked nothing yet. Paths in its calls are relative to `dir`, which has a disk. */
  static async start(stage: Stage, name: string): Promise<Bare> {
    await using undo = new AsyncDisposableStack();
    const dir = path.join(stage.dir, name);
    await mkdir(dir);
    await makeDisk(stage, path.join(dir, 'rootfs.ext4'));
    const namespace = undo.use(await Namespace.create(0));
    const argv = ['netns', 'exec', namespace.name, FIRECRACKER, '--api-sock', 'api.sock', '--id', name];
    const child = spawn('ip', argv, { cwd: dir, stdio: 'ignore' });
    const closed = once(child, 'close');
    undo.defer(async () => {
      child.kill('SIGKILL');
      await closed;
    });
    const api = await FirecrackerApi.open(path.join(dir, 'api.sock'), 5000);
    undo.move();
    return new Bare(dir, api, child, namespace);
  }

  get pid(): number {
    return this.#child.pid!;
  }

  file(name: string): string {
    return path.join(this.dir, name);
  }

  /** Resolves with its exit code or signal. */
  async ended(): Promise<number | string> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return exitCode ?? signalCode!;
    const [code, signal] = (await once(this.#child, 'close')) as [number | null, string | null];
    return code ?? signal!;
  }

  async boot(stage: Stage): Promise<void> {
    const boot_args = [...KERNEL_PARAMETERS, 'reboot=k'].join(' ');
    await this.api.calls([
      put('/machine-config', { vcpu_count: 1, mem_size_mib: MEMORY_MB, track_dirty_pages: true }),
      put('/boot-source', { kernel_image_path: stage.kernel, initrd_path: stage.initramfs, boot_args }),
      put('/drives/rootfs', {
        drive_id: 'rootfs',
        path_on_host: 'rootfs.ext4',
        is_root_device: true,
        is_read_only: false,
      }),
      put('/network-interfaces/eth0', { iface_id: 'eth0', host_dev_name: 'tap0' }),
      put('/balloon', { amount_mib: 0, deflate_on_oom: true, stats_polling_interval_s: 0 }),
      put('/actions', { action_type: 'InstanceStart' }),
    ]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.api.close();
    this.#child.kill('SIGKILL');
    await this.ended();
    await this.#namespace[Symbol.asyncDispose]();
  }
}

/** A real guest wants its root file system; the fake's makes do with an empty disk. */
async function makeDisk(stage: Stage, file: string): Promise<void> {
  if (IS_REAL) {
    await run(['cp', '--sparse=always', stage.imageFile, file]);
    return;
  }
  await writeFile(file, '');
  await truncate(file, DISK_BYTES);
}
