/** A program run in a guest: its events, and the same collected into one answer. */
import { Code, ConnectError } from '@connectrpc/connect';
import { ThawError } from '@thaw/api';
import { Signal } from '../gen/process_pb.ts';
import { type Guest, userHeader } from './guest.ts';
import { Kept } from './kept.ts';
import { readable, refusal } from './refusal.ts';
import { answered, KEEPALIVE_SEC, Silence } from './silence.ts';

export interface TerminalSize {
  cols: number;
  rows: number;
}

export interface Command {
  cmd: string;
  args: string[];
  cwd: string;
  env: Record<string, string>;
  user: string;
  /** 0 = no limit. */
  timeoutMs: number;
  /** Keeps standard input open for `sendInput`. */
  stdin: boolean;
  /** Runs on a terminal: what it shows is stdout, and its input is open. */
  pty?: TerminalSize | undefined;
}

export type ExecEvent =
  | { type: 'start'; pid: number }
  | { type: 'stdout'; data: Uint8Array }
  | { type: 'stderr'; data: Uint8Array }
  | { type: 'end'; exitCode: number; error: string };

/** What the shells answer for a command that does not exist. */
const EXIT_NOT_FOUND = 127;

/** What the shells answer for a signal: 128 + its number. */
const SIGNAL_EXIT: Record<string, number> = { 'signal: killed': 137, 'signal: terminated': 143 };

/** After a program's own limit, so that the guest's word about it arrives first. */
const LIMIT_GRACE_MS = 10_000;

/** Starts a program and yields what it does. The program is killed when the consumer leaves early. */
export async function* stream(
  guest: Guest,
  command: Command,
  signal: AbortSignal,
): AsyncGenerator<ExecEvent> {
  using silence = new Silence(guest.patience, signal);
  if (command.timeoutMs !== 0) silence.limit(command.timeoutMs + LIMIT_GRACE_MS);
  let started = false;
  try {
    for await (const { event } of silence.listen(start(guest, command, silence.signal))) {
      switch (event?.event.case) {
        case 'start':
          started = true;
          yield { type: 'start', pid: event.event.value.pid };
          break;
        case 'data': {
          const { case: source, value } = event.event.value.output;
          if (source !== undefined) yield { type: source === 'stderr' ? 'stderr' : 'stdout', data: value };
          break;
        }
        case 'end': {
          const { exitCode, exited, status, error } = event.event.value;
          const code = exited ? exitCode : (SIGNAL_EXIT[status] ?? 255);
          yield { type: 'end', exitCode: code, error: exited ? '' : readable(error ?? status) };
          return;
        }
        default:
          break;
      }
    }
  } catch (thrown) {
    const error = silence.reason(thrown);
    if (!isMissingCommand(error)) throw ended(error, started);
    yield { type: 'stderr', data: Buffer.from(`thaw: ${command.cmd}: command not found\n`) };
    yield { type: 'end', exitCode: EXIT_NOT_FOUND, error: '' };
    return;
  }
  throw new ThawError('agent_error', 'the guest agent ended the program without an exit code');
}

function start(guest: Guest, command: Command, signal: AbortSignal) {
  const { cmd, args, env: envs, cwd, pty } = command;
  return guest.processes.start(
    {
      process: { cmd, args, envs, ...(cwd !== '' && { cwd }) },
      stdin: command.stdin,
      ...(pty && { pty: { size: pty } }),
    },
    {
      signal,
      headers: {
        ...userHeader(command.user),
        // By hand: the library's own timer would outlive a call that is left before its end.
        ...(command.timeoutMs !== 0 && { 'connect-timeout-ms': String(command.timeoutMs) }),
        'thaw-kill-on-disconnect': '1',
        'keepalive-ping-interval': String(KEEPALIVE_SEC),
      },
    },
  );
}

/** Why a program ended that did not tell how. */
function ended(error: unknown, started: boolean): ThawError {
  if (!(error instanceof ConnectError && error.code === Code.DeadlineExceeded)) return refusal(error);
  return started
    ? new ThawError('timeout', 'the program ran longer than its timeout and was killed')
    : new ThawError('agent_error', 'the guest agent did not start the program in time', { cause: error });
}

/** The guest agent refuses to start what is not there; callers expect what a shell answers. */
function isMissingCommand(error: unknown): boolean {
  return (
    error instanceof ConnectError && error.isWireError && /^command '.*' not found$/s.test(error.rawMessage)
  );
}

export interface ExecResult {
  stdout: Uint8Array;
  stderr: Uint8Array;
  exitCode: number;
}

/** Runs a program to its end. More output than `Kept` holds kills it: `too_large`. */
export async function collect(
  guest: Guest,
  command: Command,
  input: Uint8Array,
  signal: AbortSignal,
): Promise<ExecResult> {
  using output = new Kept();
  const over = new AbortController();
  try {
    for await (const event of stream(guest, { ...command, stdin: input.length > 0 }, signal)) {
      switch (event.type) {
        case 'start':
          // A program may end without reading all of its input; how it ended says the rest.
          if (input.length > 0)
            void sendInput(guest, { pid: event.pid, data: input, eof: true }, over.signal).catch(() => {});
          break;
        case 'stdout':
        case 'stderr':
          output.add(event.type, event.data);
          break;
        case 'end':
          return { stdout: output.all('stdout'), stderr: output.all('stderr'), exitCode: event.exitCode };
      }
    }
  } finally {
    over.abort();
  }
  throw new ThawError('agent_error', 'the guest agent ended the program without an exit code');
}

export interface Input {
  pid: number;
  data: Uint8Array;
  /** Closes standard input after `data`. */
  eof: boolean;
  /** The program runs on a terminal. */
  pty?: boolean;
}

/** The most bytes of one SendInput to the guest agent. */
const INPUT_CHUNK_BYTES = 256 * 1024;

/** Resolves when the program's pipe or terminal has taken everything, however long the program lets it wait. */
export async function sendInput(guest: Guest, input: Input, signal: AbortSignal): Promise<void> {
  if (input.pty && input.eof)
    throw new ThawError('invalid_request', 'a terminal has no end of input; send it the character 4 (^D)');
  const process = { selector: { case: 'pid' as const, value: input.pid } };
  const source = input.pty ? 'pty' : 'stdin';
  try {
    for (let offset = 0; offset < input.data.length; offset += INPUT_CHUNK_BYTES) {
      const value = input.data.subarray(offset, offset + INPUT_CHUNK_BYTES);
      await guest.processes.sendInput({ process, input: { input: { case: source, value } } }, { signal });
    }
    if (input.eof) await guest.processes.closeStdin({ process }, { signal });
  } catch (error) {
    throw refusal(error);
  }
}

export async function resize(guest: Guest, pid: number, size: TerminalSize): Promise<void> {
  const process = { selector: { case: 'pid' as const, value: pid } };
  await answered(guest.patience, (options) => guest.processes.update({ process, pty: { size } }, options));
}

export async function sendSignal(guest: Guest, pid: number, number: number): Promise<void> {
  if (number !== 9 && number !== 15) throw new ThawError('invalid_request', 'the signal is 9 or 15');
  const signal = number === 9 ? Signal.SIGKILL : Signal.SIGTERM;
  const process = { selector: { case: 'pid' as const, value: pid } };
  await answered(guest.patience, (options) => guest.processes.sendSignal({ process, signal }, options));
}
