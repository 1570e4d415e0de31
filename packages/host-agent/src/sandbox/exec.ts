/** Runs programs in a sandbox. */

import { ThawError } from '@thaw/api';
import type {
  ExecRequest,
  ExecStreamRequest,
  ResizeTerminalRequest,
  SendInputRequest,
  SignalProcessRequest,
  TerminalSize,
} from '@thaw/api/rpc';
import * as guest from '../guest/exec.ts';
import type { Host } from '../host.ts';

const UNARY_TIMEOUT_SEC = 30;
/** What the kernel can keep. */
const TERMINAL_MAX = 65_535;

type Program = Pick<ExecRequest, 'cmd' | 'args' | 'cwd' | 'env' | 'user'>;

function command(program: Program, timeoutSec: number, stdin: boolean): guest.Command {
  if (program.cmd === '') throw new ThawError('invalid_request', 'cmd is empty');
  const { cmd, args, cwd, env, user } = program;
  // Whatever the sandbox's own defaults are.
  const who = user === '' ? { user: 'root', cwd: cwd === '' ? '/root' : cwd } : { user, cwd };
  return { cmd, args, env, ...who, timeoutMs: timeoutSec * 1000, stdin };
}

/** Runs a program to its end; 30 s unless the request says otherwise, then `timeout`. */
export function exec(host: Host, request: ExecRequest, signal: AbortSignal): Promise<guest.ExecResult> {
  const timeoutSec = request.timeoutSec > 0 ? request.timeoutSec : UNARY_TIMEOUT_SEC;
  const program = command(request, timeoutSec, false);
  return host.registry
    .get(request.sandboxId)
    .call((machine, stopping) =>
      guest.collect(machine.guest, program, request.stdin, AbortSignal.any([signal, stopping])),
    );
}

/** Starts a program and yields its events. The caller leaving ends the program. */
export async function* execStream(host: Host, request: ExecStreamRequest, signal: AbortSignal) {
  const { pty } = request;
  const program = {
    ...command(request, Math.max(0, request.timeoutSec), request.stdin || pty !== undefined),
    ...(pty && { pty: size(pty) }),
  };
  const events = host.registry
    .get(request.sandboxId)
    .callStream((machine, stopping) =>
      guest.stream(machine.guest, program, AbortSignal.any([signal, stopping])),
    );
  for await (const event of events) yield serialise(event);
}

function serialise(event: guest.ExecEvent) {
  switch (event.type) {
    case 'start':
      return { event: { case: 'start' as const, value: { pid: event.pid } } };
    case 'stdout':
    case 'stderr':
      return {
        event: { case: 'data' as const, value: { output: { case: event.type, value: event.data } } },
      };
    case 'end':
      return {
        event: { case: 'end' as const, value: { exitCode: event.exitCode, error: event.error } },
      };
  }
}

export function sendInput(host: Host, request: SendInputRequest, signal: AbortSignal): Promise<void> {
  return host.registry
    .get(request.sandboxId)
    .call((machine, stopping) =>
      guest.sendInput(machine.guest, request, AbortSignal.any([signal, stopping])),
    );
}

export function resizeTerminal(host: Host, request: ResizeTerminalRequest): Promise<void> {
  const terminal = size(request.size);
  return host.registry
    .get(request.sandboxId)
    .call((machine) => guest.resize(machine.guest, request.pid, terminal));
}

export function signalProcess(host: Host, request: SignalProcessRequest): Promise<void> {
  return host.registry
    .get(request.sandboxId)
    .call((machine) => guest.sendSignal(machine.guest, request.pid, request.signal));
}

function size(wish: TerminalSize | undefined): guest.TerminalSize {
  const { cols = 0, rows = 0 } = wish ?? {};
  if (cols < 1 || rows < 1 || cols > TERMINAL_MAX || rows > TERMINAL_MAX)
    throw new ThawError('invalid_request', `a terminal has 1 to ${TERMINAL_MAX} columns and rows`);
  return { cols, rows };
}
