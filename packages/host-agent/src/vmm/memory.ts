/** A VM's memory: a client of the pager, which runs as a child of the sandbox's keeper. */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import { z } from 'zod';
import type { ChildSpec, FdSource, Keeper } from '../keeper/keeper.ts';
import { freeBytes } from '../os/free-bytes.ts';
import { addChain, NOFILE_MAX } from './chain.ts';
import type { Programs } from './roles.ts';
import type {
  Backend,
  BootSpec,
  Chain,
  Dumped,
  Memory,
  MemoryStats,
  PagerSpec as PagerParts,
  RestoreSpec,
  Tracker,
  Workset,
} from './vmm.ts';

const START_TIMEOUT_MS = 5000;
/** A dump writes up to all of the guest's memory. */
const DUMP_TIMEOUT_MS = 120_000;
/** A VM stands still for less than this no longer than for its device state. */
const PRE_DUMP_WORTH_BYTES = 2 * 2 ** 20;
/** Of the disk, for guests that write while it is taken up. Where there is less, one that stands still misses nothing. */
const GUESTS_ROOM_BYTES = 64 * 2 ** 20;
const COMMIT_TIMEOUT_MS = 10_000;
const LOG_BYTES = 64 * 1024;

const startedSchema = z.object({ tracker: z.enum(['scan', 'compare']) });
/** A pager of an earlier version does not tell its backend, nor know of pre-dumps. */
const runningSchema = startedSchema.extend({
  backend: z.enum(['uffd', 'mapped']).default('uffd'),
  pre_dumps: z.boolean().default(false),
});
const dumpedSchema = z.object({
  stored_bytes: z.number(),
  zero_bytes: z.number(),
  read_bytes: z.number(),
  scan_us: z.number(),
  copy_us: z.number(),
});
const preDumpedSchema = z.object({ read_bytes: z.number().nullable() });
const worksetSchema = z.object({ pages: z.number() });
const statsSchema = z.object({
  faults: z.number(),
  pages_faulted: z.number(),
  pages_ahead: z.number(),
  /** A pager that an earlier version started does not say. */
  untouched_bytes: z.number().nullable().default(null),
  bytes_copied: z.number(),
  bytes_zeroed: z.number(),
  bytes_by_build: z.record(z.string(), z.number()),
  latency_us: z.object({
    p50: z.number(),
    p90: z.number(),
    p99: z.number(),
    max: z.number(),
    buckets: z.array(z.tuple([z.number(), z.number()])),
  }),
  removed_pages: z.number(),
  read_frozen_bytes: z.number(),
  tracker: z.string(),
  resident_bytes: z.number(),
});

export interface PagerSpec {
  program: string;
  uid: number;
  /** Who may shake hands. */
  vmmUid: number;
  memoryBytes: number;
  tracker: 'auto' | Tracker;
  /** A new file, under the run folder. */
  state: string;
  /** Where missing pages come from; nothing at a boot. */
  chain?: Chain;
  backend: Backend;
  workset?: Workset;
}

function childOf({ program, uid }: Pick<PagerSpec, 'program' | 'uid'>): ChildSpec {
  return {
    argv: [program],
    env: {},
    uid,
    gid: uid,
    caps: ['SYS_PTRACE'],
    root: 'host',
    rlimits: { nofile: NOFILE_MAX },
    log_bytes: LOG_BYTES,
  };
}

function modeOf({ chain, backend }: PagerSpec): 'boot' | 'restore' | 'mapped' {
  if (chain === undefined) return 'boot';
  return backend === 'mapped' ? 'mapped' : 'restore';
}

interface ChildEvent {
  role: string;
  body: { event: string; reason?: unknown; serving?: unknown };
}

/** Where the VMM finds the pager, as the host sees it. */
export function pagerSocket(runDir: string): string {
  return path.join(runDir, 'vmm', 'pager.sock');
}

export class Pager implements Memory {
  readonly backend: Backend;
  readonly tracker: Tracker;
  readonly #keeper: Keeper;
  /** The next dump goes on from there. */
  #preDumped = false;

  readonly #preDumps: boolean;

  private constructor(
    keeper: Keeper,
    { backend, tracker, preDumps }: Pick<Memory, 'backend' | 'tracker'> & { preDumps: boolean },
  ) {
    this.#keeper = keeper;
    this.#preDumps = preDumps;
    this.backend = backend;
    this.tracker = tracker;
  }

  /** Starts the process, which knows nothing yet. */
  static async spawn(keeper: Keeper, spec: Pick<PagerSpec, 'program' | 'uid'>): Promise<void> {
    await keeper.spawn('pager', childOf(spec), true);
  }

  /** Starts the pager, unless it was spawned; it listens for its VMM when this returns. */
  static async start(keeper: Keeper, spec: PagerSpec, spawned = false): Promise<Pager> {
    const fds: FdSource[] = [
      { listen: pagerSocket(keeper.runDir), uid: spec.vmmUid, mode: 0o600 },
      { open: spec.state, flags: 'create' },
    ];
    const request = {
      op: 'start',
      mode: modeOf(spec),
      memory_bytes: spec.memoryBytes,
      tracker: spec.tracker,
      peer_uid: spec.vmmUid,
      listen: 0,
      state: 1,
      ...addChain(fds, spec.chain),
      ...addWorkset(fds, spec.workset ?? {}),
    };
    // The keeper takes requests in order, so the second need not wait for the first one's answer.
    const [, started] = await Promise.all([
      spawned || keeper.spawn('pager', childOf(spec), true),
      keeper.ask('pager', request, fds, START_TIMEOUT_MS),
    ]);
    return new Pager(keeper, { backend: spec.backend, preDumps: true, ...startedSchema.parse(started) });
  }

  /** Starts a pager in the place of one that died, with what the keeper and the state file kept of that one. */
  static async replace(keeper: Keeper, spec: PagerSpec): Promise<void> {
    const listen = pagerSocket(keeper.runDir);
    await rm(listen, { force: true });
    const { kept } = await keeper.status();
    // A VMM that filled its memory itself never met the dead one.
    const met = kept.includes('pager.handshake');
    const fds: FdSource[] = [
      { listen, uid: spec.vmmUid, mode: 0o600 },
      { open: spec.state, flags: 'rw' },
      ...(met ? [{ kept: 'pager.handshake' }, { kept: 'pager.handshake.1' }] : []),
    ];
    const request = {
      op: 'start',
      mode: 'take_over',
      memory_bytes: spec.memoryBytes,
      tracker: spec.tracker,
      peer_uid: spec.vmmUid,
      listen: 0,
      state: 1,
      ...(met && { uffd: 2, socket: 3 }),
      ...addChain(fds, spec.chain),
    };
    const pagemap = { op: 'pagemap', pagemap: 0 };
    await Promise.all([
      keeper.spawn('pager', childOf(spec), true),
      keeper.ask('pager', request, fds, START_TIMEOUT_MS),
      met && keeper.ask('pager', pagemap, [{ pagemap: 'vmm' }], START_TIMEOUT_MS),
    ]);
  }

  /** A pager that runs already. */
  static async attach(keeper: Keeper): Promise<Pager> {
    const stats = await keeper.ask('pager', { op: 'stats' }, [], COMMIT_TIMEOUT_MS);
    const { pre_dumps: preDumps, ...running } = runningSchema.parse(stats);
    return new Pager(keeper, { preDumps, ...running });
  }

  /**
   * Resolves when the VMM has handed over its memory; throws when the pager refuses it or `timeoutMs` is over.
   * To be called before the VMM starts, so that no event is missed.
   */
  handshake(timeoutMs: number): Promise<void> {
    return Pager.met(this.#keeper, timeoutMs);
  }

  /** The same of a pager that is just being started. */
  static async met(keeper: Keeper, timeoutMs: number): Promise<void> {
    await Pager.#handshaken(keeper, timeoutMs);
    // The pager may read the VMM's memory but not open its files.
    const fds = [{ pagemap: 'vmm' }, { clear_refs: 'vmm' }];
    await keeper.ask('pager', { op: 'pagemap', pagemap: 0, clear_refs: 1 }, fds, START_TIMEOUT_MS);
  }

  static #handshaken(keeper: Keeper, timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (cause: unknown) => {
        leave();
        reject(new ThawError('internal', 'the VM did not hand over its memory', { cause }));
      };
      const onChild = ({ role, body }: ChildEvent) => {
        if (role !== 'pager') return;
        if (body.event === 'failed' && body.serving !== true) fail(body.reason);
        if (body.event !== 'handshake') return;
        leave();
        resolve();
      };
      const onExit = ({ role }: { role: string }) => {
        if (role === 'pager' || role === 'vmm') fail(`${role} ended`);
      };
      const timer = setTimeout(() => fail(`no handshake in ${timeoutMs} ms`), timeoutMs);
      const leave = () => {
        clearTimeout(timer);
        keeper.off('child', onChild);
        keeper.off('exit', onExit);
      };
      keeper.on('child', onChild);
      keeper.on('exit', onExit);
    });
  }

  async preDump(memfile: string): Promise<void> {
    this.#preDumped = false;
    if (!this.#preDumps) return;
    const room_bytes = Math.max(0, (await freeBytes(path.dirname(memfile))) - GUESTS_ROOM_BYTES);
    const request = { op: 'pre_dump', memfile: 0, worth_bytes: PRE_DUMP_WORTH_BYTES, room_bytes };
    const fds: FdSource[] = [{ open: memfile, flags: 'create' }];
    const result = await this.#keeper.ask('pager', request, fds, DUMP_TIMEOUT_MS);
    this.#preDumped = preDumpedSchema.parse(result).read_bytes !== null;
    if (!this.#preDumped) await rm(memfile);
  }

  async dump(files: { memfile: string; runs: string }): Promise<Dumped> {
    if (this.#preDumped) {
      this.#preDumped = false;
      return { ...(await this.#seal({ op: 'dump' }, [], files.runs)), layout: 'sparse' };
    }
    const memfile: FdSource = { open: files.memfile, flags: 'create' };
    return { ...(await this.#seal({ op: 'dump', memfile: 0 }, [memfile], files.runs)), layout: 'packed' };
  }

  /**
   * Makes a diff of `file`, in which the VMM has written what changed, where it lies. `kept`: it is the file that was
   * collected last, and not committed.
   */
  async collect(file: string, runs: string, kept: boolean): Promise<Dumped> {
    const diff: FdSource = { open: file, flags: 'rw' };
    return { ...(await this.#seal({ op: 'collect', diff: 0, kept }, [diff], runs)), layout: 'sparse' };
  }

  async #seal(
    request: { op: string } & Record<string, unknown>,
    content: FdSource[],
    runs: string,
  ): Promise<Omit<Dumped, 'layout'>> {
    const fds: FdSource[] = [...content, { open: runs, flags: 'create' }];
    const result = await this.#keeper.ask(
      'pager',
      { ...request, runs: content.length },
      fds,
      DUMP_TIMEOUT_MS,
    );
    const dumped = dumpedSchema.parse(result);
    return {
      storedBytes: dumped.stored_bytes,
      zeroBytes: dumped.zero_bytes,
      readBytes: dumped.read_bytes,
      scanUs: dumped.scan_us,
      copyUs: dumped.copy_us,
    };
  }

  async commit(chain: Chain): Promise<void> {
    const fds: FdSource[] = [];
    const request = { op: 'commit', ...addChain(fds, chain) };
    await this.#keeper.ask('pager', request, fds, COMMIT_TIMEOUT_MS);
  }

  async abort(): Promise<void> {
    this.#preDumped = false;
    await this.#keeper.ask('pager', { op: 'abort' }, [], COMMIT_TIMEOUT_MS);
  }

  async endWorkset(): Promise<void> {
    await this.#keeper.ask('pager', { op: 'workset' }, [], COMMIT_TIMEOUT_MS);
  }

  async writeWorkset(file: string): Promise<boolean> {
    const fds: FdSource[] = [{ open: file, flags: 'create' }];
    const result = await this.#keeper.ask('pager', { op: 'workset', file: 0 }, fds, COMMIT_TIMEOUT_MS);
    return worksetSchema.parse(result).pages > 0;
  }

  async stats(): Promise<MemoryStats> {
    const result = await this.#keeper.ask('pager', { op: 'stats' }, [], COMMIT_TIMEOUT_MS);
    const stats = statsSchema.parse(result);
    return {
      faults: stats.faults,
      pagesFaulted: stats.pages_faulted,
      pagesAhead: stats.pages_ahead,
      untouchedBytes: stats.untouched_bytes,
      bytesCopied: stats.bytes_copied,
      bytesZeroed: stats.bytes_zeroed,
      bytesByBuild: stats.bytes_by_build,
      latencyUs: stats.latency_us,
      removedPages: stats.removed_pages,
      readFrozenBytes: stats.read_frozen_bytes,
      tracker: stats.tracker,
      residentBytes: stats.resident_bytes,
    };
  }
}

function addWorkset(
  fds: FdSource[],
  { file, turn, likely }: Workset,
): { workset?: number; turn?: number; likely?: boolean } {
  return {
    ...(file !== undefined && { workset: fds.push({ open: file, flags: 'r' }) - 1 }),
    ...(turn !== undefined && { turn }),
    ...(likely !== undefined && { likely }),
  };
}

/** The pager of a VM that is about to start; it listens for its VMM. */
export function startPager(programs: Programs, spec: BootSpec | RestoreSpec): Promise<Pager> {
  const pager = pagerOf(programs, spec);
  const spawned = spec.ahead !== undefined;
  if (spec.kind === 'boot') return Pager.start(spec.keeper, pager, spawned);
  const { memory: chain, backend, workset } = spec;
  // Nothing of mapped memory has to be brought in.
  const ahead = backend === 'uffd' ? { workset } : {};
  return Pager.start(spec.keeper, { ...pager, chain, backend, ...ahead }, spawned);
}

/** Another pager for a VMM whose own has died. */
export async function replacePager(programs: Programs, keeper: Keeper, spec: PagerParts): Promise<void> {
  const chain = spec.memory && { chain: spec.memory };
  await Pager.replace(keeper, { ...pagerOf(programs, spec), ...chain });
}

function pagerOf(programs: Programs, spec: Omit<PagerParts, 'memory'>): PagerSpec {
  return {
    program: programs.pager,
    uid: spec.uids.pager,
    vmmUid: spec.uids.vmm,
    memoryBytes: spec.memoryMb * 2 ** 20,
    backend: 'uffd',
    tracker: spec.tracker,
    state: spec.pagerState,
  };
}
