/**
 * What the host agent needs of a virtual machine monitor. One contract suite (`contract.ts`) runs against every
 * implementation.
 *
 *   boot ─┐                    ┌─ save ─► stopped ─► …
 *         ├─► running ─ stop ─► stopped ─ goOn ─► running        any ─ kill ─► gone
 *   restore ┘
 *
 * A call that takes too long kills the VM: a monitor in an unknown state is never asked again.
 */
import type { Layout } from '@thaw/snapshot';
import type { Exit, Keeper } from '../keeper/keeper.ts';

export type VmmKind = 'qemu' | 'firecracker' | 'fake';
export type Accelerator = 'kvm' | 'tcg' | 'none';
export type Isolation = 'hardware-vm' | 'emulated';

/** What a snapshot depends on besides the guest: it is restored only where these are the same. */
export interface VmmInfo {
  vmm: VmmKind;
  /** major.minor of the monitor. */
  version: string;
  machine: string;
  cpuModel: string;
  accelerator: Accelerator;
  isolation: Isolation;
  /** Rate of the time stamp counter that guests see. */
  tscKhz: number;
}

/** How a VM's pages come in (`backend.ts`), and how its written ones are found. */
export type Backend = 'uffd' | 'mapped';
export type Tracker = 'scan' | 'compare';

/** A header file and, by build id, the data file of every build it names. All are host paths. */
export interface Chain {
  header: string;
  builds: Record<string, string>;
}

/** The writable layer of a disk: data and the map of blocks that became zero. */
export interface Layer {
  data: string;
  zeros: string;
}

export interface DiskSpec {
  sizeBytes: number;
  /** Both files are made new. */
  top: Layer;
  /** What lies under the top; nothing for an empty disk. */
  base?: Chain;
  /** Enlarge the file system to `sizeBytes` before the VM starts. */
  grow?: boolean;
}

interface VmSpec {
  /** Just started; its jail not built yet, unless something was done ahead. */
  keeper: Keeper;
  /** `prepare` was called, or `startAhead` too, for a VM of this size and memory. */
  ahead?: 'helpers' | 'vmm' | undefined;
  /** One user each, used by no other sandbox. */
  uids: { vmm: number; pager: number; blockstore: number };
  /** Path of the network namespace with the tap. */
  netns: string;
  tapName: string;
  vcpus: number;
  memoryMb: number;
  /** Host paths. A restore needs the files of the boot. */
  kernel: string;
  initramfs: string;
  /** More kernel parameters, for the guest's init. */
  cmdline: string[];
  disk: DiskSpec;
  tracker: 'auto' | Tracker;
  /** Where the pager keeps what a replacement needs to know; under the run folder. */
  pagerState: string;
  /** A folder on the file system of the builds, for a VMM that writes memory and device state by itself. */
  snapshotDir: string;
}

export interface BootSpec extends VmSpec {
  kind: 'boot';
}

export interface RestoreSpec extends VmSpec {
  kind: 'restore';
  memory: Chain;
  /** One of the kit's. */
  backend: Backend;
  /** Pages to bring in before the VM asks for them. */
  workset?: Workset;
  /** Device state, as `save` wrote it. */
  vmstate: string;
}

/**
 * What is known of the pages that a VM is going to need: the record of an earlier start, or, with `likely`, none of this
 * very build but at best its parent's; then pages that changed last come in too. With `turn`, a part of what was only read
 * is left to its faults, another one each turn: the set recorded this time is without what nobody asked for.
 */
export interface Workset {
  file?: string;
  turn?: number;
  likely?: boolean;
}

/** Chooses and starts VMs; one for the whole host agent. */
export interface VmmKit {
  readonly info: VmmInfo;
  /** What a restore may ask for. */
  readonly backends: readonly Backend[];
  /** Builds the jail of a VM, before anybody knows which, and starts what serves its memory and disk. */
  prepare?(keeper: Keeper, spec: PrepareSpec): Promise<void>;
  /** After that: starts a VMM, which comes as far as it can before it is known what it restores. */
  startAhead?(keeper: Keeper, spec: AheadSpec): Promise<void>;
  /** A VM whose kernel has just been started. When it throws, nothing of the VM runs. */
  boot(spec: BootSpec): Promise<Vm>;
  /** A VM that runs on from its device state. When it throws, nothing of the VM runs. */
  restore(spec: RestoreSpec): Promise<Vm>;
  /**
   * A VM that an earlier host agent started, by its keeper; running or stopped. What that one may have dumped or
   * rotated is still uncommitted. Throws `unavailable` when the VM has ended.
   */
  attach(keeper: Keeper, spec: AttachSpec): Promise<Vm>;
  /** Serves the memory of a VM whose pager died; its guest waits until then. Throws when that can't be. */
  replacePager(keeper: Keeper, spec: PagerSpec): Promise<void>;
}

/** `kernel`, `initramfs`: what VMs boot with here; one that is restored needs neither. */
export interface PrepareSpec extends Pick<VmSpec, 'uids' | 'kernel' | 'initramfs'> {}

export interface AheadSpec
  extends Pick<VmSpec, 'uids' | 'netns' | 'tapName' | 'vcpus' | 'memoryMb' | 'tracker'> {
  /** What its memory will be mapped from; else it will come through the pager. */
  memory?: Chain | undefined;
  diskBytes: number;
}

export interface AttachSpec extends Pick<VmSpec, 'uids' | 'snapshotDir'> {}

export interface PagerSpec extends Pick<VmSpec, 'uids' | 'memoryMb' | 'pagerState' | 'tracker'> {
  /** What was committed last, or restored; nothing of a VM that booted and was never sealed. */
  memory?: Chain;
}

export interface Vm {
  readonly info: VmmInfo;
  readonly memory: Memory;
  readonly disk: Disk;
  /** Resolves when the VMM has ended, whatever the reason. */
  readonly gone: Promise<Exit>;
  /** Process id of the VMM. */
  readonly pid: number;
  stop(): Promise<void>;
  /** Writes the device state of a stopped VM into a new file. */
  save(file: string): Promise<Saved>;
  goOn(): Promise<void>;
  /** Ends the VMM at once; returns when it is gone. */
  kill(): Promise<void>;
  /** The last output of the guest's console and of the VMM. */
  console(): Promise<string>;
}

export interface Saved {
  vmstateBytes: number;
  ms: number;
}

/** A VM's memory: the pager. */
export interface Memory {
  readonly backend: Backend;
  readonly tracker: Tracker;
  /**
   * Copies dirty blocks of a running VM into a new file, so that the dump into that file finds less to do. Nothing is
   * there afterwards if it is not worth it.
   */
  preDump(memfile: string): Promise<void>;
  /** Writes the dirty blocks of a stopped VM, and the list of runs (24-byte records); both files are new, but for a pre-dump's. */
  dump(files: { memfile: string; runs: string }): Promise<Dumped>;
  /** The dump is sealed: pages come from `chain` from now on, and the dirty set is forgotten. */
  commit(chain: Chain): Promise<void>;
  /** The dump is void: its dirty set is part of the next one. */
  abort(): Promise<void>;
  /** Ends the recording of the working set, which begins with the VM. */
  endWorkset(): Promise<void>;
  /** Ends the recording and writes the pages that were needed until then into a new file; false if there are none. */
  writeWorkset(file: string): Promise<boolean>;
  stats(): Promise<MemoryStats>;
}

export interface Dumped {
  /** Of the memfile. */
  layout: Layout;
  storedBytes: number;
  zeroBytes: number;
  readBytes: number;
  scanUs: number;
  copyUs: number;
}

export interface MemoryStats {
  faults: number;
  pagesFaulted: number;
  /** Brought in before anyone asked for them. */
  pagesAhead: number;
  /** Bytes of those, zeros apart, that the guest has not touched yet (how that is known: the pager's `touched.rs`). */
  untouchedBytes: number | null;
  bytesCopied: number;
  bytesZeroed: number;
  bytesByBuild: Record<string, number>;
  latencyUs: { p50: number; p90: number; p99: number; max: number; buckets: [number, number][] };
  removedPages: number;
  readFrozenBytes: number;
  tracker: string;
  residentBytes: number;
}

/** A VM's disk: the block store. */
export interface Disk {
  /** Everything the guest was told is written is on the host's disk. */
  flush(): Promise<void>;
  /** The top becomes a layer to be sealed and `top` (new files) takes the writes; `runs` lists the layer's blocks. */
  rotate(top: Layer, runs: string): Promise<{ storedBytes: number; zeroBytes: number }>;
  /** The layer is sealed and part of `chain`. */
  commit(chain: Chain): Promise<void>;
  /** The layer is the top again; the caller removes the files of the new one. */
  abort(): Promise<void>;
  stats(): Promise<Record<string, unknown>>;
}
