/** A VM's disk: a client of the block store, which runs as a child of the sandbox's keeper. */
import { z } from 'zod';
import type { ChildSpec, FdSource, Keeper } from '../keeper/keeper.ts';
import { KeeperError } from '../keeper/wire.ts';
import { addChain, NOFILE_MAX } from './chain.ts';
import type { Programs } from './roles.ts';
import type { BootSpec, Chain, Disk, DiskSpec, Layer, RestoreSpec } from './vmm.ts';

/** A vmstate stores the path of its disk, so it is the same in every jail for ever. */
const DISK_DIR = '/tmp/fc-vm';
export const DISK_PATH = `${DISK_DIR}/rootfs.ext4`;

const START_TIMEOUT_MS = 10_000;
const SYNC_TIMEOUT_MS = 60_000;
const GROW_TIMEOUT_MS = 60_000;
const LOG_BYTES = 64 * 1024;

const rotatedSchema = z.object({ stored_bytes: z.number(), zero_bytes: z.number() });
const statsSchema = z.record(z.string(), z.unknown());

/** Of the session that is mounted when a block store is started ahead. */
const FUSE_FD = 10;

export interface BlockStoreSpec extends DiskSpec {
  program: string;
  uid: number;
  /** `spawn` was called. */
  spawned: boolean;
}

export class BlockStore implements Disk {
  readonly #keeper: Keeper;

  private constructor(keeper: Keeper) {
    this.#keeper = keeper;
  }

  /**
   * Starts the process and mounts its file system in the jail, which must be built. Who opens the disk waits for `start`;
   * when the process ends, that fails.
   */
  static async spawn(keeper: Keeper, spec: Pick<BlockStoreSpec, 'program' | 'uid'>): Promise<void> {
    const fds = [{ as: FUSE_FD, fuse: DISK_DIR }];
    await keeper.spawn('blockstore', { ...childOf(spec), fds }, true);
  }

  /** Starts the block store and mounts its file in the jail, which must be built. */
  static async start(keeper: Keeper, spec: BlockStoreSpec): Promise<BlockStore> {
    // The keeper has a duplicate of a session that it mounted before.
    const fds: FdSource[] = [spec.spawned ? { kept: 'fuse' } : { fuse: DISK_DIR }];
    const top = addLayer(fds, spec.top);
    const request = { op: 'start', size_bytes: spec.sizeBytes, fuse: 0, ...top, ...addChain(fds, spec.base) };
    await Promise.all([
      spec.spawned || keeper.spawn('blockstore', childOf(spec), true),
      keeper.ask('blockstore', request, fds, START_TIMEOUT_MS),
    ]);
    return new BlockStore(keeper);
  }

  /** A block store that runs already. */
  static async attach(keeper: Keeper): Promise<BlockStore> {
    const store = new BlockStore(keeper);
    await store.stats();
    return store;
  }

  /** Enlarges the file system to the disk's size. Only the jail's user can reach the file. */
  async grow(vmmUid: number): Promise<void> {
    const result = await this.#keeper.run(
      {
        argv: ['/usr/sbin/resize2fs', DISK_PATH],
        // It wants to look into a list of mounts, which the jail does not have.
        env: { EXT2FS_NO_MTAB_OK: '1' },
        uid: vmmUid,
        gid: vmmUid,
        root: 'jail',
      },
      GROW_TIMEOUT_MS,
    );
    if (result.code !== 0) throw new KeeperError('resize2fs', 'internal', result.output);
  }

  async flush(): Promise<void> {
    await this.#keeper.ask('blockstore', { op: 'flush' }, [], SYNC_TIMEOUT_MS);
  }

  async rotate(top: Layer, runs: string): Promise<{ storedBytes: number; zeroBytes: number }> {
    const fds: FdSource[] = [{ open: runs, flags: 'create' }];
    const request = { op: 'rotate', runs: 0, ...addLayer(fds, top) };
    const rotated = rotatedSchema.parse(await this.#keeper.ask('blockstore', request, fds, SYNC_TIMEOUT_MS));
    return { storedBytes: rotated.stored_bytes, zeroBytes: rotated.zero_bytes };
  }

  async commit(chain: Chain): Promise<void> {
    const fds: FdSource[] = [];
    const request = { op: 'commit', ...addChain(fds, chain) };
    await this.#keeper.ask('blockstore', request, fds, SYNC_TIMEOUT_MS);
  }

  async abort(): Promise<void> {
    await this.#keeper.ask('blockstore', { op: 'abort' }, [], SYNC_TIMEOUT_MS);
  }

  async stats(): Promise<Record<string, unknown>> {
    return statsSchema.parse(await this.#keeper.ask('blockstore', { op: 'stats' }, [], SYNC_TIMEOUT_MS));
  }
}

function childOf({ program, uid }: Pick<BlockStoreSpec, 'program' | 'uid'>): ChildSpec {
  return {
    argv: [program],
    env: {},
    uid,
    gid: uid,
    root: 'host',
    rlimits: { nofile: NOFILE_MAX },
    log_bytes: LOG_BYTES,
  };
}

function addLayer(fds: FdSource[], layer: Layer): { top: number; zeros: number } {
  const top = fds.push({ open: layer.data, flags: 'create' }) - 1;
  const zeros = fds.push({ open: layer.zeros, flags: 'create' }) - 1;
  return { top, zeros };
}

/** A VM's disk with its final size; the jail must be built. */
export async function startDisk(programs: Programs, spec: BootSpec | RestoreSpec): Promise<BlockStore> {
  const disk = await BlockStore.start(spec.keeper, {
    ...spec.disk,
    program: programs.blockstore,
    uid: spec.uids.blockstore,
    spawned: spec.ahead !== undefined,
  });
  if (spec.disk.grow) await disk.grow(spec.uids.vmm);
  return disk;
}
