/** A program run in a guest: its events, and the same collected into one answer. */
import { Code, ConnectError } from '@connectrpc/connect';
import { ThawError } from '@thaw/api';
import { Signal } from '../gen/process_pb.ts';
import { type Guest, userHeader } from './guest.ts';

/** The most that a collected exec keeps of each output stream, in bytes. */
export const OUTPUT_BYTES_MAX = 16 * 2 ** 20;

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

function translate(error: unknown): ThawError {
  if (error instanceof ThawError) return error;
  const connect = ConnectError.from(error);
  switch (connect.code) {
    case Code.InvalidArgument:
      return new ThawError('invalid_request', connect.rawMessage);
    case Code.Unauthenticated:
      return new ThawError('invalid_request', connect.rawMessage);
    case Code.NotFound:
      return new ThawError('not_found', connect.rawMessage);
    case Code.DeadlineExceeded:
      return new ThawError('timeout', 'the program ran longer than its timeout and was killed');
    case Code.Unavailable:
    case Code.Canceled:
      return new ThawError('unavailable', 'the sandbox stopped answering', { cause: error });
    default:
      return new ThawError('agent_error', 'the guest agent failed', { cause: error });
  }
}

/** Starts a program and yields what it does. The program is killed when the consumer leaves early. */
export async function* stream(
  guest: Guest,
  command: Command,
  signal: AbortSignal,
): AsyncGenerator<ExecEvent> {
  const events = guest.processes.start(
    {
      process: {
        cmd: command.cmd,
        args: command.args,
        envs: command.env,
        cwd: command.cwd === '' ? undefined : command.cwd,
      },
      stdin: command.stdin,
    },
    {
      signal,
      timeoutMs: command.timeoutMs === 0 ? undefined : command.timeoutMs,
      headers: { ...userHeader(command.user), 'thaw-kill-on-disconnect': '1' },
    },
  );
  try {
    for await (const { event } of events) {
      switch (event?.event.case) {
        case 'start':
          yield { type: 'start', pid: event.event.value.pid };
          break;
        case 'data': {
          const output = event.event.value.output;
          if (output.case === 'stdout' || output.case === 'stderr') {
            yield { type: output.case, data: output.value };
          }
          break;
        }
        case 'end': {
          const { exitCode, exited, status, error } = event.event.value;
          const code = exited ? exitCode : (SIGNAL_EXIT[status] ?? 255);
          yield { type: 'end', exitCode: code, error: exited ? '' : (error ?? status) };
          return;
        }
        default:
          break;
      }
    }
  } catch (error) {
    if (!isMissingCommand(error)) throw translate(error);
    yield { type: 'stderr', data: Buffer.from(`thaw: ${command.cmd}: command not found\n`) };
    yield { type: 'end', exitCode: EXIT_NOT_FOUND, error: '' };
    return;
  }
  throw new ThawError('agent_error', 'the guest agent ended the program without an exit code');
}

/** The guest agent refuses to start what is not there; callers expect what a shell answers. */
function isMissingCommand(error: unknown): boolean {
  return error instanceof ConnectError && /^command '.*' not found$/s.test(error.rawMessage);
}

export interface ExecResult {
  stdout: Uint8Array;
  stderr: Uint8Array;
  exitCode: number;
}

/** Runs a program to its end. More output than `OUTPUT_BYTES_MAX` kills it: `too_large`. */
export async function collect(
  guest: Guest,
  command: Command,
  input: Uint8Array,
  signal: AbortSignal,
): Promise<ExecResult> {
  const output = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
  const sizes = { stdout: 0, stderr: 0 };
  for await (const event of stream(guest, { ...command, stdin: input.length > 0 }, signal)) {
    switch (event.type) {
      case 'start':
        // A program may end without reading all of its input; how it ended says the rest.
        if (input.length > 0) void sendInput(guest, event.pid, input, true).catch(() => {});
        break;
      case 'stdout':
      case 'stderr':
        sizes[event.type] += event.data.length;
        if (sizes[event.type] > OUTPUT_BYTES_MAX) {
          throw new ThawError(
            'too_large',
            `more than ${OUTPUT_BYTES_MAX} bytes of ${event.type}: use the stream`,
          );
        }
        output[event.type].push(event.data);
        break;
      case 'end':
        return {
          stdout: Buffer.concat(output.stdout),
          stderr: Buffer.concat(output.stderr),
          exitCode: event.exitCode,
        };
    }
  }
  throw new ThawError('agent_error', 'the guest agent ended the program without an exit code');
}

/** The most bytes of one SendInput to the guest agent. */
const INPUT_CHUNK_BYTES = 256 * 1024;

export async function sendInput(guest: Guest, pid: number, data: Uint8Array, eof: boolean): Promise<void> {
  const process = { selector: { case: 'pid' as const, value: pid } };
  try {
    for (let offset = 0; offset < data.length; offset += INPUT_CHUNK_BYTES) {
      const value = data.subarray(offset, offset + INPUT_CHUNK_BYTES);
      await guest.processes.sendInput({ process, input: { input: { case: 'stdin', value } } });
    }
    if (eof) await guest.processes.closeStdin({ process });
  } catch (error) {
    throw translate(error);
  }
}

export async function sendSignal(guest: Guest, pid: number, number: number): Promise<void> {
  if (number !== 9 && number !== 15) throw new ThawError('invalid_request', 'the signal is 9 or 15');
  const signal = number === 9 ? Signal.SIGKILL : Signal.SIGTERM;
  try {
    await guest.processes.sendSignal({ process: { selector: { case: 'pid', value: pid } }, signal });
  } catch (error) {
    throw translate(error);
  }
}
