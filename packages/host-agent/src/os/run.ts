/** Runs one program of the host from an argument list; no shell is ever involved. */
import { execFile } from 'node:child_process';
import { ThawError } from '@thaw/api';

export interface RunOptions {
  /** Written to standard input, which is closed after it. */
  input?: string | Buffer;
  /** The program is killed after this time. 30 s unless told. */
  timeoutMs?: number;
  signal?: AbortSignal;
  cwd?: string;
}

export interface Output {
  stdout: string;
  stderr: string;
}

/** How a program failed: it could not be started, took too long, died of a signal, or said no. */
export type Failure =
  | { kind: 'missing'; reason: string }
  | { kind: 'timeout'; afterMs: number }
  | { kind: 'signal'; signal: string }
  | { kind: 'exit'; code: number };

/** A program of the host failed. The message names only the program; the rest is for the log. */
export class CommandError extends ThawError {
  readonly argv: readonly string[];
  readonly failure: Failure;
  readonly stderr: string;

  constructor(argv: readonly string[], failure: Failure, stderr: string) {
    super('internal', `${argv[0]} failed on the host`, { cause: describe(argv, failure, stderr) });
    this.name = 'CommandError';
    this.argv = argv;
    this.failure = failure;
    this.stderr = stderr;
  }
}

/** The same programs and messages whatever environment the daemon was started in. */
export const ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };
const OUTPUT_BYTES_MAX = 64 * 2 ** 20;

/** Runs `argv` and resolves when it ended with 0. Throws `CommandError` for every other end. */
export function run(argv: readonly [string, ...string[]], options: RunOptions = {}): Promise<Output> {
  const [file, ...args] = argv;
  const timeoutMs = options.timeoutMs ?? 30_000;
  return new Promise((resolve, reject) => {
    const child = execFile(
      file,
      args,
      {
        env: ENV,
        cwd: options.cwd ?? '/',
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: OUTPUT_BYTES_MAX,
        signal: options.signal,
      },
      (error, stdout, stderr) => {
        if (error === null) return resolve({ stdout, stderr });
        if (options.signal?.aborted) return reject(options.signal.reason);
        reject(new CommandError(argv, failureOf(error, timeoutMs), stderr));
      },
    );
    // A program that ends without reading its input closes the pipe; its exit code tells what happened.
    child.stdin?.on('error', () => {});
    child.stdin?.end(options.input ?? '');
  });
}

interface ExecError extends Error {
  code?: string | number | null;
  signal?: NodeJS.Signals | null;
  killed?: boolean;
}

function failureOf(error: ExecError, timeoutMs: number): Failure {
  if (typeof error.code === 'number') return { kind: 'exit', code: error.code };
  if (error.killed && error.code == null) return { kind: 'timeout', afterMs: timeoutMs };
  if (error.signal) return { kind: 'signal', signal: error.signal };
  return { kind: 'missing', reason: error.message };
}

function describe(argv: readonly string[], failure: Failure, stderr: string): string {
  return `${argv.join(' ')}: ${JSON.stringify(failure)}: ${stderr.trim().slice(0, 2000)}`;
}
