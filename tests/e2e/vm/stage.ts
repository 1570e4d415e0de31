/** What tests on real VMs share: installed programs, the base image as a build, folders and users of their own. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { chmod, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createHeader, serialiseHeader } from '@thaw/snapshot';
import { Keeper } from '../../../packages/host-agent/src/keeper/keeper.ts';
import type { Build, World } from '../../../packages/host-agent/src/vmm/contract.ts';
import { firecrackerKit } from '../../../packages/host-agent/src/vmm/firecracker/kit.ts';
import { qemuKit } from '../../../packages/host-agent/src/vmm/qemu/kit.ts';
import type {
  Backend,
  BootSpec,
  Chain,
  Layer,
  RestoreSpec,
  Tracker,
  VmmKit,
} from '../../../packages/host-agent/src/vmm/vmm.ts';
import { FIRECRACKER, KERNEL } from './firecracker.ts';
import { Namespace } from './namespace.ts';

const GUEST = process.env.THAW_GUEST ?? '/var/cache/thaw/guest';
const BLOCK = 4096;

/** Host paths of all programs. */
interface Binaries {
  keeper: string;
  pager: string;
  blockstore: string;
  preload: string;
  qemu: string;
  firecracker: string;
}

export class Stage implements AsyncDisposable {
  readonly dir: string;
  readonly binaries: Binaries;
  readonly kernel: string;
  readonly kit: VmmKit;
  readonly #undo: AsyncDisposableStack;
  #sandboxes = 0;

  private constructor(
    dir: string,
    binaries: Binaries,
    kernel: string,
    kit: VmmKit,
    undo: AsyncDisposableStack,
  ) {
    this.dir = dir;
    this.binaries = binaries;
    this.kernel = kernel;
    this.kit = kit;
    this.#undo = undo;
  }

  /** `jailer`: Firecracker's own. */
  static async open(vmm: 'qemu' | 'firecracker' = 'qemu', jailer?: string): Promise<Stage> {
    await using undo = new AsyncDisposableStack();
    const dir = await mkdtemp(path.join(os.tmpdir(), 'thaw-vm-'));
    undo.defer(() => rm(dir, { recursive: true, force: true }));
    // Children run as users who may not be able to read the checkout.
    await chmod(dir, 0o755);
    const version = process.env.THAW_VERSION_DIR;
    assert.ok(version, 'THAW_VERSION_DIR names the installed version to test');
    const binaries = {
      keeper: path.join(version, 'bin/thaw-keeper'),
      pager: path.join(version, 'bin/thaw-pager'),
      blockstore: path.join(version, 'bin/thaw-blockstore'),
      preload: path.join(version, 'lib/libthaw_preload.so'),
      qemu: '/usr/bin/qemu-system-x86_64',
      firecracker: FIRECRACKER,
    };
    const kernel = (vmm === 'firecracker' && KERNEL) || path.join(GUEST, 'vmlinux');
    const kit =
      vmm === 'qemu'
        ? await qemuKit({ binaries, accelerator: 'tcg', probe: { kernel } })
        : await firecrackerKit({ ...binaries, jailer });
    return new Stage(dir, binaries, kernel, kit, undo.move());
  }

  get initramfs(): string {
    return path.join(GUEST, 'initramfs.cpio');
  }

  get imageFile(): string {
    return path.join(GUEST, 'minimal.ext4');
  }

  /** The base image as the disk of a build. */
  async image(): Promise<{ disk: Chain; sizeBytes: number }> {
    const data = this.imageFile;
    const { size } = await stat(data);
    const id = randomUUID();
    const header = path.join(this.dir, `${id}.rootfs.header`);
    const runs = [{ offset: 0, length: size, kind: 'stored' as const }];
    const options = { build: id, size, blockSize: BLOCK, runs, layout: 'sparse' as const };
    await writeFile(header, serialiseHeader(createHeader(options)));
    return { disk: { header, builds: { [id]: data } }, sizeBytes: size };
  }

  /** As the contract of VMMs wants it; it ends the stage. */
  get world(): World {
    return {
      kit: this.kit,
      dir: this.dir,
      boot: async () => (await this.sandbox()).boot(),
      restore: async (build, backend) => (await this.sandbox()).restore(build, 'auto', backend),
      [Symbol.asyncDispose]: () => this[Symbol.asyncDispose](),
    };
  }

  /** A folder, a namespace and a keeper for one sandbox; all end with the stage. */
  async sandbox(): Promise<SandboxStage> {
    const number = ++this.#sandboxes;
    const dir = path.join(this.dir, `sb${number}`);
    await mkdir(dir);
    const first = UID_BASE + 3 * number;
    const namespace = this.#undo.use(await Namespace.create(first));
    const keeper = await Keeper.start(this.binaries.keeper, path.join(dir, 'run'));
    this.#undo.defer(async () => {
      await keeper.end().catch(() => {});
      keeper.close();
    });
    return new SandboxStage(this, dir, keeper, namespace, first);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }
}

const UID_BASE = 790_000 + (process.pid % 1000) * 64;

export const MEMORY_MB = 256;

export class SandboxStage {
  readonly dir: string;
  readonly keeper: Keeper;
  readonly namespace: Namespace;
  readonly uids: { vmm: number; pager: number; blockstore: number };
  readonly #stage: Stage;
  #layers = 0;

  constructor(stage: Stage, dir: string, keeper: Keeper, namespace: Namespace, uid: number) {
    this.#stage = stage;
    this.dir = dir;
    this.keeper = keeper;
    this.namespace = namespace;
    this.uids = { vmm: uid, pager: uid + 1, blockstore: uid + 2 };
  }

  /** A file in the folder of the VMM's sockets, before the VMM starts. */
  async vmmFile(name: string): Promise<string> {
    const folder = path.join(this.keeper.runDir, 'vmm');
    await mkdir(folder, { recursive: true });
    return path.join(folder, name);
  }

  /** Paths of a new disk layer. */
  layer(): Layer {
    const name = path.join(this.dir, `layer${++this.#layers}`);
    return { data: `${name}.data`, zeros: `${name}.zeros` };
  }

  async boot(tracker: 'auto' | Tracker = 'auto'): Promise<BootSpec> {
    const { disk, sizeBytes } = await this.#stage.image();
    return { kind: 'boot', ...this.#common(tracker), disk: { sizeBytes, top: this.layer(), base: disk } };
  }

  async restore(
    build: Build,
    tracker: 'auto' | Tracker = 'auto',
    backend: Backend = 'uffd',
  ): Promise<RestoreSpec> {
    const { sizeBytes } = await this.#stage.image();
    const { memory, vmstate } = build;
    const disk = { sizeBytes, top: this.layer(), base: build.disk };
    return { kind: 'restore', ...this.#common(tracker), memory, backend, vmstate, disk };
  }

  #common(tracker: 'auto' | Tracker) {
    return {
      keeper: this.keeper,
      uids: this.uids,
      netns: this.namespace.path,
      tapName: 'tap0',
      vcpus: 1,
      memoryMb: MEMORY_MB,
      kernel: this.#stage.kernel,
      initramfs: this.#stage.initramfs,
      cmdline: [],
      tracker,
      pagerState: path.join(this.dir, 'run/pager.state'),
      snapshotDir: path.join(this.dir, 'snapshot'),
    };
  }
}
