/**
 * A command as a stream of messages (spec/exec-stream.md).
 *
 *   (auth) ─► start ─► started ─► stdout, stderr … ─► exit ─► closed
 *                         └─ stop, or the client is gone: SIGTERM, after a while SIGKILL
 */
import {
  decodeBytes,
  type ErrorKind,
  encodeBytes,
  StreamAuth,
  StreamInput,
  StreamStart,
  type TerminalSize,
  ThawError,
} from '@thaw/api';
import type { ExecStreamResponse } from '@thaw/api/rpc';
import type { z } from 'zod';
import type { Caller, VerifyKey } from '../auth/key.ts';
import { requireCaller } from '../http/app.ts';
import { invalid, toThawError } from '../http/errors.ts';
import type { Plane } from '../plane.ts';
import { checkEnter, enter } from '../sandbox/enter.ts';
import { type Feed, InputQueue } from './input.ts';
import type { Messages } from './socket.ts';

const KEY_WITHIN_MS = 5_000;
const START_WITHIN_MS = 30_000;
const TERM_GRACE_MS = 2_000;

export interface StreamOptions {
  /** Empty: the key comes in the first message. */
  teamId: string;
  sandboxId: string;
  verifyKey: VerifyKey;
  /** Called when the key came with the first message. */
  authenticated: (caller: Caller) => void;
  /** Called once: with nothing when the command is let in, else with why it is not. */
  decided: (refusal?: ErrorKind) => void;
}

/** Serves one socket to its end; it never throws. */
export async function execStream(plane: Plane, messages: Messages, options: StreamOptions): Promise<void> {
  let decided = false;
  const decide = (refusal?: ErrorKind) => {
    if (!decided) options.decided(refusal);
    decided = true;
  };
  try {
    const teamId = options.teamId || (await authenticate(messages, options));
    await checkEnter(plane, teamId, options.sandboxId);
    const start = parse(StreamStart, await within(messages, START_WITHIN_MS, 'start'));
    using _ = await enter(plane, teamId, options.sandboxId);
    decide();
    await new Process(plane, messages, options.sandboxId).run(start);
    messages.close(1000, 'exit');
  } catch (thrown) {
    const error = toThawError(thrown);
    decide(error.kind);
    plane.log.info({ err: thrown, sandbox: options.sandboxId }, 'an exec stream ended with an error');
    await messages.fail(error);
  }
}

async function authenticate(messages: Messages, options: StreamOptions): Promise<string> {
  const first = await within(messages, KEY_WITHIN_MS, 'auth').catch(() => {
    throw new ThawError('unauthenticated', 'no key within 5 s');
  });
  const parsed = StreamAuth.safeParse(json(first));
  if (!parsed.success) {
    throw new ThawError(
      'unauthenticated',
      'the first message must be {"type":"auth","key":…}, or send the key as a header',
    );
  }
  const caller = await requireCaller(options.verifyKey, parsed.data.key);
  options.authenticated(caller);
  return caller.teamId;
}

class Process {
  readonly #plane: Plane;
  readonly #messages: Messages;
  readonly #sandboxId: string;
  readonly #abort = new AbortController();
  #hasInput = false;
  #pty = false;
  #stopping = false;
  #ended = false;
  #killTimer: NodeJS.Timeout | undefined;

  constructor(plane: Plane, messages: Messages, sandboxId: string) {
    this.#plane = plane;
    this.#messages = messages;
    this.#sandboxId = sandboxId;
  }

  async run(start: StreamStart): Promise<void> {
    const { type: _, timeout_sec, ...rest } = start;
    this.#pty = start.pty !== undefined;
    this.#hasInput = start.stdin || this.#pty;
    const request = { ...rest, sandboxId: this.#sandboxId, timeoutSec: timeout_sec };
    try {
      for await (const { event } of this.#plane.host.execStream(request, this.#abort.signal)) {
        if (event.case === 'start') {
          const { pid } = event.value;
          await this.#messages.send({ type: 'start', pid });
          void this.#serveInput(pid);
        } else if (event.case === 'data') {
          await this.#tell(event.value);
        } else if (event.case === 'end') {
          this.#ended = true;
          const { exitCode, error } = event.value;
          await this.#messages.send({ type: 'exit', exit_code: exitCode, ...(error && { error }) });
          return;
        }
      }
      throw new ThawError('agent_error', 'the stream ended without an exit code');
    } catch (error) {
      // Aborted by us, after a kill: nobody is left to tell.
      if (!this.#messages.closed || !this.#stopping) throw error;
    } finally {
      this.#ended = true;
      clearTimeout(this.#killTimer);
      this.#abort.abort();
    }
  }

  async #tell({ output }: Extract<ExecStreamResponse['event'], { case: 'data' }>['value']): Promise<void> {
    if (output.case === undefined || output.value.length === 0) return;
    await this.#messages.send({ type: output.case, ...encodeBytes(output.value) });
  }

  /** Input goes to the program in order; what is to be done to the program does not wait behind it. Never throws. */
  async #serveInput(pid: number): Promise<void> {
    const input = new InputQueue((message) => this.#orTell(() => this.#feed(pid, message)));
    while (!this.#ended) {
      const text = await this.#messages.next();
      if (text === undefined) return this.#stop(pid);
      await this.#orTell(async () => {
        const message = parse(StreamInput, text);
        if (message.type === 'stop') return this.#stop(pid);
        if (message.type === 'resize') return this.#resize(pid, message);
        if (!this.#hasInput)
          throw new ThawError('invalid_request', 'standard input is not open: start with "stdin":true');
        input.add(message);
        await Promise.race([input.room(), this.#messages.gone]);
      });
    }
  }

  /** What goes wrong is told to the client; the command goes on. */
  async #orTell(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (thrown) {
      if (this.#ended) return;
      const error = toThawError(thrown);
      await this.#messages.send({ type: 'error', code: error.kind, data: error.message });
    }
  }

  /** Resolves when the guest has it. */
  #feed(pid: number, message: Feed): Promise<void> {
    const to = { sandboxId: this.#sandboxId, pid, pty: this.#pty };
    const call =
      message.type === 'stdin_close'
        ? { ...to, eof: true }
        : { ...to, data: decodeBytes(message.data, message.encoding) };
    return this.#plane.host.sendInput(call, this.#abort.signal);
  }

  async #resize(pid: number, { cols, rows }: TerminalSize): Promise<void> {
    if (!this.#pty) throw new ThawError('invalid_request', 'the command has no terminal');
    await this.#plane.host.resize({ sandboxId: this.#sandboxId, pid, size: { cols, rows } });
  }

  async #stop(pid: number): Promise<void> {
    if (this.#stopping || this.#ended) return;
    this.#stopping = true;
    this.#killTimer = setTimeout(() => void this.#kill(pid), TERM_GRACE_MS);
    await this.#signal(pid, 15);
  }

  async #kill(pid: number): Promise<void> {
    if (this.#ended) return;
    await this.#signal(pid, 9);
    this.#killTimer = setTimeout(() => this.#abort.abort(), TERM_GRACE_MS);
  }

  async #signal(pid: number, signal: 9 | 15): Promise<void> {
    try {
      await this.#plane.host.signal(this.#sandboxId, pid, signal);
    } catch (error) {
      if (!this.#ended)
        this.#plane.log.warn({ err: error, sandbox: this.#sandboxId, pid }, 'a process was not signalled');
    }
  }
}

async function within(messages: Messages, timeoutMs: number, what: string): Promise<string> {
  const { promise: expired, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => reject(new ThawError('timeout', `no ${what} message within ${timeoutMs / 1000} s`)),
    timeoutMs,
  );
  try {
    const message = await Promise.race([messages.next(), expired]);
    if (message === undefined) throw new ThawError('unavailable', 'the client is gone');
    return message;
  } finally {
    clearTimeout(timer);
  }
}

function json(message: string): unknown {
  try {
    return JSON.parse(message);
  } catch {
    throw new ThawError('invalid_request', 'a message is not valid JSON');
  }
}

function parse<T extends z.ZodType>(schema: T, message: string): z.output<T> {
  const parsed = schema.safeParse(json(message));
  if (!parsed.success) throw invalid(parsed.error.issues, 'message');
  return parsed.data;
}
