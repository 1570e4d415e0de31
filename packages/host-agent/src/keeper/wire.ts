/**
 * Newline-delimited JSON over a keeper's socket: requests with ids, their answers in any order, events between
 * them. The frames are described in `crates/keeper/src/request.rs`.
 */
import { once } from 'node:events';
import net from 'node:net';
import { type ErrorKind, ThawError } from '@thaw/api';
import { z } from 'zod';

/** How long an answer may be late after the time the keeper itself was given. */
const SLACK_MS = 2000;
const CONNECT_TIMEOUT_MS = 2000;
const FRAME_BYTES_MAX = 16 * 2 ** 20;

const answerSchema = z.discriminatedUnion('ok', [
  z.object({ id: z.number(), ok: z.literal(true), result: z.unknown() }),
  z.object({
    id: z.number().nullable(),
    ok: z.literal(false),
    error: z.object({ kind: z.string(), message: z.string() }),
  }),
]);

const eventSchema = z.discriminatedUnion('event', [
  z.object({
    event: z.literal('exit'),
    role: z.string(),
    code: z.number().nullable(),
    signal: z.number().nullable(),
  }),
  z.object({
    event: z.literal('child'),
    role: z.string(),
    body: z.looseObject({ event: z.string() }),
  }),
]);

export type KeeperEvent = z.infer<typeof eventSchema>;

/** Which of a keeper's error kinds tell a caller of ours something; the rest are our own mistakes. */
const PUBLIC_KINDS: Record<string, ErrorKind> = {
  exhausted: 'exhausted',
  timeout: 'timeout',
  unavailable: 'unavailable',
};

/** A keeper, or one of its children, refused or failed. `reason` is its own kind, `detail` is for the log only. */
export class KeeperError extends ThawError {
  readonly reason: string;
  readonly detail: string;

  constructor(op: string, reason: string, detail: string) {
    super(PUBLIC_KINDS[reason] ?? 'internal', 'a process of the sandbox failed', {
      cause: `${op}: ${reason}: ${detail}`,
    });
    this.name = 'KeeperError';
    this.reason = reason;
    this.detail = detail;
  }
}

interface Waiting {
  op: string;
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout;
}

/** One connection. Closing it, from either end, rejects every call that is open. */
export class Wire {
  readonly #socket: net.Socket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #onEvent: (event: KeeperEvent) => void;
  readonly #onClose: () => void;
  #unread: Buffer[] = [];
  #unreadBytes = 0;
  #lastId = 0;
  #closed = false;

  private constructor(socket: net.Socket, onEvent: (event: KeeperEvent) => void, onClose: () => void) {
    this.#socket = socket;
    this.#onEvent = onEvent;
    this.#onClose = onClose;
    socket.on('data', (chunk) => this.#take(chunk));
    socket.on('error', () => {});
    socket.on('close', () => this.#end());
  }

  /** Throws the socket's error (`ENOENT`, `ECONNREFUSED`) when nobody listens. */
  static async open(path: string, onEvent: (event: KeeperEvent) => void, onClose: () => void): Promise<Wire> {
    const socket = net.connect(path);
    try {
      await once(socket, 'connect', { signal: AbortSignal.timeout(CONNECT_TIMEOUT_MS) });
    } catch (error) {
      socket.destroy();
      throw error;
    }
    return new Wire(socket, onEvent, onClose);
  }

  /** Throws `KeeperError`; `timeout` also when the keeper itself stays silent. */
  call(op: string, fields: object, timeoutMs: number): Promise<unknown> {
    if (this.#closed) return Promise.reject(new KeeperError(op, 'unavailable', 'the connection is closed'));
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new KeeperError(op, 'timeout', `no answer in ${timeoutMs} ms`));
      }, timeoutMs + SLACK_MS);
      this.#waiting.set(id, { op, resolve, reject, timer });
      this.#socket.write(`${JSON.stringify({ ...fields, id, op })}\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
    this.#end();
  }

  #take(chunk: Buffer): void {
    let rest = chunk;
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      const line = Buffer.concat([...this.#unread, rest.subarray(0, end)]);
      this.#unread = [];
      this.#unreadBytes = 0;
      rest = rest.subarray(end + 1);
      if (!this.#takeFrame(line)) {
        this.close();
        return;
      }
    }
    if (rest.length === 0) return;
    this.#unread.push(rest);
    this.#unreadBytes += rest.length;
    if (this.#unreadBytes > FRAME_BYTES_MAX) this.close();
  }

  /** False when the keeper makes no sense. */
  #takeFrame(line: Buffer): boolean {
    let frame: unknown;
    try {
      frame = JSON.parse(line.toString('utf8'));
    } catch {
      return false;
    }
    const event = eventSchema.safeParse(frame);
    if (event.success) {
      this.#onEvent(event.data);
      return true;
    }
    const answer = answerSchema.safeParse(frame);
    if (!answer.success || answer.data.id === null) return false;
    const waiting = this.#waiting.get(answer.data.id);
    if (waiting === undefined) return true;
    this.#waiting.delete(answer.data.id);
    clearTimeout(waiting.timer);
    if (answer.data.ok) waiting.resolve(answer.data.result);
    else waiting.reject(new KeeperError(waiting.op, answer.data.error.kind, answer.data.error.message));
    return true;
  }

  #end(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { op, reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(new KeeperError(op, 'unavailable', 'the keeper hung up'));
    }
    this.#waiting.clear();
    this.#onClose();
  }
}
