/** The fake agent's commands: processes of this machine, each in a group of its own so that a signal reaches all of it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { buffer } from 'node:stream/consumers';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { ThawError } from '@thaw/api';
import {
  type ExecRequest,
  type ExecStreamRequest,
  type ExecStreamResponseSchema,
  toConnectError,
} from '@thaw/api/rpc';

type Command = Pick<ExecRequest, 'cmd' | 'args' | 'cwd' | 'env'>;

async function start(command: Command, stdin: 'pipe' | 'ignore'): Promise<ChildProcess> {
  try {
    const child = spawn(command.cmd, command.args, {
      cwd: command.cwd || '/',
      env: { PATH: process.env.PATH, ...command.env },
      stdio: [stdin, 'pipe', 'pipe'],
      detached: true,
    });
    child.stdin?.on('error', () => {});
    await once(child, 'spawn');
    return child;
  } catch {
    throw toConnectError(new ThawError('invalid_request', `${command.cmd} cannot be started`));
  }
}

const codeOf = (child: ChildProcess): number =>
  child.exitCode ?? (child.signalCode === 'SIGKILL' ? 137 : 143);

export async function runFake(request: ExecRequest) {
  const child = await start(request, 'pipe');
  const limit = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), (request.timeoutSec || 30) * 1000);
  child.stdin!.end(request.stdin);
  const [stdout, stderr] = await Promise.all([
    buffer(child.stdout!),
    buffer(child.stderr!),
    once(child, 'close'),
  ]);
  clearTimeout(limit);
  if (child.signalCode === 'SIGKILL')
    throw toConnectError(new ThawError('timeout', 'the command took too long'));
  return { stdout, stderr, exitCode: codeOf(child) };
}

export async function* execStreamFake(
  request: ExecStreamRequest,
  signal: AbortSignal,
  processes: Map<number, ChildProcess>,
): AsyncGenerator<MessageInitShape<typeof ExecStreamResponseSchema>> {
  const child = await start(request, request.stdin || request.pty ? 'pipe' : 'ignore');
  const closed = once(child, 'close');
  const pid = child.pid!;
  processes.set(pid, child);
  const abort = () => process.kill(-pid, 'SIGKILL');
  signal.addEventListener('abort', abort);
  try {
    yield { event: { case: 'start', value: { pid } } };
    for await (const [name, value] of merge(child)) {
      yield { event: { case: 'data', value: { output: { case: name, value } } } };
    }
    await closed;
    yield { event: { case: 'end', value: { exitCode: codeOf(child) } } };
  } finally {
    signal.removeEventListener('abort', abort);
    processes.delete(pid);
  }
}

/** Chunks of both outputs as they come. */
async function* merge(child: ChildProcess): AsyncGenerator<['stdout' | 'stderr', Buffer]> {
  const sources = { stdout: child.stdout!.iterator(), stderr: child.stderr!.iterator() };
  const next = async (name: 'stdout' | 'stderr') => ({ name, result: await sources[name].next() });
  const pending = new Map([
    ['stdout', next('stdout')],
    ['stderr', next('stderr')],
  ]);
  while (pending.size > 0) {
    const { name, result } = await Promise.race(pending.values());
    if (result.done) {
      pending.delete(name);
      continue;
    }
    pending.set(name, next(name));
    yield [name, result.value];
  }
}
