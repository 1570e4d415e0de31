/**
 * A sandbox's keeper as the host agent sees it: the process that starts, watches and ends the VMM, the pager and
 * the block store. It outlives the host agent, which finds it again by its socket.
 */
import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdir, open, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { KeeperError, Wire } from './wire.ts';

/** Where a descriptor comes from; opened by the keeper as root. */
export type FdSource =
  | { open: string; flags: 'r' | 'w' | 'rw' | 'create' | 'dir' }
  | { listen: string; uid: number; mode: number }
  | { fuse: string }
  | { tmpfile: number }
  /** The page map of the running child of this role. */
  | { pagemap: string }
  /** What clears the accessed bits of its pages. */
  | { clear_refs: string }
  | { kept: string };

export interface Jail {
  uid: number;
  binds: { source: string; target: string; ro: boolean }[];
  /** Empty folders of the jail's user. */
  dirs: string[];
  devices: ('null' | 'urandom' | 'kvm' | 'net/tun' | 'userfaultfd')[];
  /** For a jailer of the VMM's own: where below the run folder it expects the tree, into which it brings the rest. */
  jailer_root?: string;
}

export interface ChildSpec {
  /** The program is an absolute path as seen from `root`. */
  argv: string[];
  env: Record<string, string>;
  uid: number;
  gid: number;
  caps?: 'SYS_PTRACE'[];
  root: 'jail' | 'host';
  /** A jailer: it keeps root's rights until it becomes the VMM. */
  jailer?: boolean;
  /** Path of a network namespace; the keeper's own unless given. */
  netns?: string;
  fds?: ({ as: number } & FdSource)[];
  nice?: number;
  rlimits?: { nofile?: number; fsize?: number; nproc?: number; memlock?: number; as?: number };
  /** Bytes kept of its output. */
  log_bytes?: number;
}

export type Signal = 'KILL' | 'TERM' | 'STOP' | 'CONT';

const exitSchema = z.object({ code: z.number().nullable(), signal: z.number().nullable() });
export type Exit = z.infer<typeof exitSchema>;

const startedSchema = z.object({ pid: z.number(), start_time: z.number() });
const outputSchema = exitSchema.extend({ output: z.string() });
const receivedSchema = z.object({ size_bytes: z.number() });
const logsSchema = z.object({ text: z.string(), dropped_bytes: z.number() });
const statusSchema = z.object({
  pid: z.number(),
  kept: z.array(z.string()),
  roles: z.record(z.string(), startedSchema.extend({ running: z.boolean(), exit: exitSchema.nullable() })),
});
export type KeeperStatus = z.infer<typeof statusSchema>;

interface Events {
  exit: [{ role: string } & Exit];
  child: [{ role: string; body: { event: string } & Record<string, unknown> }];
  close: [];
}

const START_TIMEOUT_MS = 5000;
const OP_TIMEOUT_MS = 10_000;

/** Where keepers come from: processes of this host, or a test's stand-ins. */
export interface Keepers {
  /** `admit` is told the new keeper's process id; when it throws, so does this and the keeper is gone. */
  start(runDir: string, admit: (pid: number) => Promise<void>): Promise<Keeper>;
  /** Throws when no keeper listens there. */
  connect(runDir: string): Promise<Keeper>;
}

/** Keepers that run `program`. */
export function keepersOf(program: string): Keepers {
  return {
    start: (runDir, admit) => Keeper.start(program, runDir, admit),
    connect: (runDir) => Keeper.connect(runDir),
  };
}

export class Keeper extends EventEmitter<Events> {
  readonly runDir: string;
  #wire: Wire | undefined;

  protected constructor(runDir: string) {
    super();
    this.runDir = runDir;
  }

  /**
   * Starts a keeper for `runDir`, which is made if missing, and connects to it. `admit` is told its process id before
   * it has a child, and waited for. Throws when it does not come up, with its own words as the cause.
   */
  static async start(
    program: string,
    runDir: string,
    admit: (pid: number) => Promise<void> = async () => {},
  ): Promise<Keeper> {
    await mkdir(runDir, { recursive: true, mode: 0o700 });
    const logFile = path.join(runDir, 'keeper.log');
    const log = await open(logFile, 'w', 0o600);
    let failure: string | undefined;
    let pid: number | undefined;
    let admitted = Promise.resolve();
    try {
      const child = spawn(program, [runDir], {
        detached: true,
        stdio: ['ignore', log.fd, log.fd],
        env: {},
        cwd: '/',
      });
      pid = child.pid;
      // Side by side with its start: the kernel takes some milliseconds to move a process.
      if (pid !== undefined) admitted = admit(pid);
      admitted.catch(() => child.kill('SIGKILL'));
      child.unref();
      child.once('error', (error) => {
        failure = error.message;
      });
      child.once('exit', (code, signal) => {
        failure = `ended with ${code ?? signal}`;
      });
    } finally {
      await log.close();
    }
    const deadline = performance.now() + START_TIMEOUT_MS;
    for (let pauseMs = 1; ; pauseMs = Math.min(2 * pauseMs, 20)) {
      const keeper = failure === undefined ? await Keeper.connect(runDir).catch(() => undefined) : undefined;
      // Another keeper may hold this folder: then it is that one which answers, and ours is about to end.
      const status = await keeper?.status().catch(() => undefined);
      if (keeper !== undefined && status?.pid === pid) {
        await admitted.catch((error) => {
          keeper.close();
          throw error;
        });
        return keeper;
      }
      keeper?.close();
      if (failure !== undefined || performance.now() > deadline) {
        await admitted;
        const words = await readFile(logFile, 'utf8').catch(() => '');
        throw new KeeperError('start', 'internal', `${failure ?? 'no socket'}: ${words}`);
      }
      await sleep(pauseMs);
    }
  }

  /** Throws the socket's error when no keeper listens there. */
  static async connect(runDir: string): Promise<Keeper> {
    const keeper = new Keeper(runDir);
    keeper.#wire = await Wire.open(
      path.join(runDir, 'keeper.sock'),
      (event) => {
        if (event.event === 'exit') keeper.emit('exit', event);
        else keeper.emit('child', event);
      },
      () => keeper.emit('close'),
    );
    return keeper;
  }

  /** Hangs up; the keeper and its children go on. Open calls are rejected. */
  close(): void {
    this.#wire?.close();
  }

  async jail(jail: Jail): Promise<void> {
    await this.#call('jail', jail);
  }

  /** Starts the child of a role; `control` gives it the channel that `ask` uses. */
  async spawn(role: string, child: ChildSpec, control = false): Promise<{ pid: number; startTime: number }> {
    const result = startedSchema.parse(await this.#call('spawn', { role, control, ...child }));
    return { pid: result.pid, startTime: result.start_time };
  }

  /** One request to a child; the request names descriptors by their index in `fds`. */
  ask(
    role: string,
    request: { op: string } & Record<string, unknown>,
    fds: FdSource[],
    timeoutMs: number,
  ): Promise<unknown> {
    return this.#call('ask', { role, request, fds, timeout_ms: timeoutMs }, timeoutMs);
  }

  /** Runs a command to its end; after `timeoutMs` it is killed and the call throws `timeout`. */
  async run(child: ChildSpec, timeoutMs: number): Promise<Exit & { output: string }> {
    return outputSchema.parse(await this.#call('run', { ...child, timeout_ms: timeoutMs }, timeoutMs));
  }

  /** Listens at `socket` for one stream from a process of `uid`, and writes it into the new `file`. */
  async receive(socket: string, file: string, uid: number): Promise<void> {
    await this.#call('receive', { socket, file, uid });
  }

  /** The bytes received, once the stream has ended. */
  async received(timeoutMs: number): Promise<number> {
    const result = receivedSchema.parse(await this.#call('received', { timeout_ms: timeoutMs }, timeoutMs));
    return result.size_bytes;
  }

  async wait(role: string, timeoutMs: number): Promise<Exit> {
    return exitSchema.parse(await this.#call('wait', { role, timeout_ms: timeoutMs }, timeoutMs));
  }

  /**
   * Resolves when the next child of this role ends. A keeper takes its children with it and so does nobody tell how
   * they ended: both fields are null then. To be called before the child starts.
   */
  gone(role: string): Promise<Exit> {
    return new Promise((resolve) => {
      const onExit = (exit: { role: string } & Exit) => {
        if (exit.role === role) done({ code: exit.code, signal: exit.signal });
      };
      const onClose = () => done({ code: null, signal: null });
      const done = (exit: Exit) => {
        this.off('exit', onExit);
        this.off('close', onClose);
        resolve(exit);
      };
      this.on('exit', onExit);
      this.on('close', onClose);
    });
  }

  /** Nothing happens when the child has ended already. */
  async signal(role: string, signal: Signal): Promise<void> {
    await this.#call('signal', { role, signal });
  }

  /** The last output of a child, also after its end. */
  async logs(role: string): Promise<string> {
    return logsSchema.parse(await this.#call('logs', { role })).text;
  }

  async status(): Promise<KeeperStatus> {
    return statusSchema.parse(await this.#call('status', {}));
  }

  /** Kills and reaps all children and removes what the keeper made; returns when the keeper has left. */
  async end(): Promise<void> {
    const closed = once(this, 'close', { signal: AbortSignal.timeout(2 * OP_TIMEOUT_MS) });
    closed.catch(() => {});
    await this.#call('end', {}, 2 * OP_TIMEOUT_MS);
    await closed;
  }

  #call(op: string, fields: object, timeoutMs = OP_TIMEOUT_MS): Promise<unknown> {
    if (this.#wire === undefined) throw new KeeperError(op, 'unavailable', 'not connected');
    return this.#wire.call(op, fields, timeoutMs);
  }
}
