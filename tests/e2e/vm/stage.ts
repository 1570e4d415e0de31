/** What tests on real VMs share: installed programs, the base image as a build, folders and users of their own. */
import { randomUUID } from 'node:crypto';
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createHeader, parseHeader, parseRuns, serialiseHeader } from '@thaw/snapshot';
import { Keeper } from '../../../packages/host-agent/src/keeper/keeper.ts';
import { qemuKit } from '../../../packages/host-agent/src/vmm/qemu/kit.ts';
import type { Binaries } from '../../../packages/host-agent/src/vmm/qemu/start.ts';
import type { Chain, Layer, Vm, VmmKit } from '../../../packages/host-agent/src/vmm/vmm.ts';

const GUEST = process.env.THAW_GUEST ?? '/var/cache/thaw/guest';
const ROOT = path.join(import.meta.dirname, '../../..');
const BLOCK = 4096;

/** A sealed generation: memory, disk and device state of one instant. */
export interface Build {
  id: string;
  vmstate: string;
  memory: Chain;
  disk: Chain;
}

export class Stage implements AsyncDisposable {
  readonly dir: string;
  readonly binaries: Binaries;
  readonly kit: VmmKit;
  readonly #undo: AsyncDisposableStack;
  #sandboxes = 0;

  private constructor(dir: string, binaries: Binaries, kit: VmmKit, undo: AsyncDisposableStack) {
    this.dir = dir;
    this.binaries = binaries;
    this.kit = kit;
    this.#undo = undo;
  }

  static async open(): Promise<Stage> {
    await using undo = new AsyncDisposableStack();
    const dir = await mkdtemp(path.join(os.tmpdir(), 'thaw-vm-'));
    undo.defer(() => rm(dir, { recursive: true, force: true }));
    // Children run as users who may not be able to read the checkout.
    await chmod(dir, 0o755);
    const musl = path.join(ROOT, 'target/x86_64-unknown-linux-musl/release');
    const install = async (source: string) => {
      const target = path.join(dir, path.basename(source));
      await copyFile(source, target);
      await chmod(target, 0o755);
      return target;
    };
    const binaries = {
      keeper: await install(path.join(musl, 'thaw-keeper')),
      pager: await install(path.join(musl, 'thaw-pager')),
      blockstore: await install(path.join(musl, 'thaw-blockstore')),
      preload: await install(path.join(ROOT, 'target/release/libthaw_preload.so')),
      qemu: '/usr/bin/qemu-system-x86_64',
    };
    const probe = { kernel: path.join(GUEST, 'vmlinux'), uid: 65534 };
    const kit = await qemuKit({ binaries, accelerator: 'tcg', probe });
    return new Stage(dir, binaries, kit, undo.move());
  }

  get kernel(): string {
    return path.join(GUEST, 'vmlinux');
  }

  get initramfs(): string {
    return path.join(GUEST, 'initramfs.cpio');
  }

  /** Runs when the stage closes. */
  defer(action: () => Promise<void>): void {
    this.#undo.defer(action);
  }

  /** The base image as the disk of a build. */
  async image(): Promise<{ disk: Chain; sizeBytes: number }> {
    const data = path.join(GUEST, 'minimal.ext4');
    const { size } = await stat(data);
    const id = randomUUID();
    const header = path.join(this.dir, `${id}.rootfs.header`);
    const runs = [{ offset: 0, length: size, kind: 'stored' as const }];
    const options = { build: id, size, blockSize: BLOCK, runs, layout: 'sparse' as const };
    await writeFile(header, serialiseHeader(createHeader(options)));
    return { disk: { header, builds: { [id]: data } }, sizeBytes: size };
  }

  /** A folder and a keeper for one sandbox; both end with the stage. */
  async sandbox(): Promise<SandboxStage> {
    const number = ++this.#sandboxes;
    const dir = path.join(this.dir, `sb${number}`);
    await mkdir(dir);
    const keeper = await Keeper.start(this.binaries.keeper, path.join(dir, 'run'));
    this.defer(async () => {
      await keeper.end().catch(() => {});
      keeper.close();
    });
    return new SandboxStage(dir, keeper);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }
}

const UID_BASE = 790_000 + (process.pid % 1000) * 64;
let users = 0;

export class SandboxStage {
  readonly dir: string;
  readonly keeper: Keeper;
  readonly uids: { vmm: number; pager: number; blockstore: number };
  #layers = 0;

  constructor(dir: string, keeper: Keeper) {
    this.dir = dir;
    this.keeper = keeper;
    const first = UID_BASE + 3 * users++;
    this.uids = { vmm: first, pager: first + 1, blockstore: first + 2 };
  }

  /** Paths of a new disk layer. */
  layer(): Layer {
    const name = path.join(this.dir, `layer${++this.#layers}`);
    return { data: `${name}.data`, zeros: `${name}.zeros` };
  }

  get pagerState(): string {
    return path.join(this.dir, 'run/pager.state');
  }

  /** Seals a stopped VM: `top` is the layer it writes to now, `parent` what it was started from. */
  async seal(
    vm: Vm,
    top: Layer,
    parent: { memory?: Chain; disk: Chain },
    sizes: { memory: number; disk: number },
  ) {
    const id = randomUUID();
    const file = (name: string) => path.join(this.dir, `${id}.${name}`);
    const next = this.layer();
    const saved = await vm.save(file('vmstate'));
    const dumped = await vm.memory.dump({ memfile: file('memfile'), runs: file('memfile.runs') });
    const rotated = await vm.disk.rotate(next, file('rootfs.runs'));
    const extend = async (
      kind: 'memfile' | 'rootfs',
      size: number,
      data: string,
      chain?: Chain,
    ): Promise<Chain> => {
      const runs = parseRuns(await readFile(file(`${kind}.runs`)));
      const below = chain === undefined ? undefined : parseHeader(await readFile(chain.header));
      const layout = kind === 'memfile' ? ('packed' as const) : ('sparse' as const);
      const header = createHeader({ build: id, size, blockSize: BLOCK, runs, layout, parent: below });
      await writeFile(file(`${kind}.header`), serialiseHeader(header));
      return { header: file(`${kind}.header`), builds: { ...chain?.builds, [id]: data } };
    };
    const memory = await extend('memfile', sizes.memory, file('memfile'), parent.memory);
    const disk = await extend('rootfs', sizes.disk, top.data, parent.disk);
    const build: Build = { id, vmstate: file('vmstate'), memory, disk };
    return { build, next, saved, dumped, rotated };
  }
}
