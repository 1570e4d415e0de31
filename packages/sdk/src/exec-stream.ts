/**
 * A command that runs in a sandbox: at once an async iterator of its output and the promise of its exit code.
 *
 *   const run = sandboxes.execStream(id, { cmd: 'make' });
 *   for await (const { stream, data } of run) process[stream].write(data);
 *   const { exitCode } = await run.result;
 */
import {
  decodeBytes,
  encodeBytes,
  isErrorKind,
  type StreamInput,
  StreamOutput,
  type StreamStartInput,
  type TerminalSize,
  ThawError,
} from '@thaw/api';
import { WebSocket } from 'ws';
import { type Connection, sandboxPath } from './http.ts';

/** Chunks that may wait to be read before the socket is paused. */
const WAITING_MAX = 64;
/** Part of standard input that fits a message even as base64. */
const INPUT_BYTES_MAX = 256 * 1024;

export interface Output {
  stream: 'stdout' | 'stderr';
  data: Uint8Array;
}

export interface ExecEnd {
  exitCode: number;
  /** What the guest has to say about the end, if anything. */
  error?: string;
}

export class ExecStream implements AsyncIterable<Output> {
  /** The process id in the guest. */
  readonly pid: Promise<number>;
  /** Settles when the command ended and its output was read, or dropped by `wait`; rejects with a `ThawError`. */
  readonly result: Promise<ExecEnd>;
  readonly #socket: WebSocket;
  readonly #pid = Promise.withResolvers<number>();
  readonly #result = Promise.withResolvers<ExecEnd>();
  readonly #waiting: Output[] = [];
  #wake: (() => void) | undefined;
  /** The last that the server told. */
  #error: ThawError | undefined;
  #ended = false;
  #discarding = false;

  constructor(to: Connection, sandboxId: string, command: Omit<StreamStartInput, 'type'>) {
    this.pid = this.#pid.promise;
    this.result = this.#result.promise;
    // Whoever is interested in only one of the two must not be surprised by the other.
    this.pid.catch(() => {});
    this.result.catch(() => {});
    const url = new URL(`${sandboxPath(sandboxId)}/exec/stream`, to.url.replace(/^http/, 'ws'));
    this.#socket = new WebSocket(url, { headers: { 'X-API-Key': to.key } });
    this.#socket.on('open', () => this.#socket.send(JSON.stringify({ type: 'start', ...command })));
    this.#socket.on('message', (data) => this.#read(data.toString()));
    this.#socket.on('unexpected-response', (_request, response) => void this.#refused(response));
    this.#socket.on('error', (error) => {
      this.#end(new ThawError('unavailable', `Thaw does not answer at ${to.url}`, { cause: error }));
    });
    this.#socket.on('close', (code, reason) => {
      const why = reason.length > 0 ? reason.toString() : `code ${code}`;
      const early = new ThawError(
        'unavailable',
        `the connection was closed before the command ended: ${why}`,
      );
      this.#end(this.#error ?? early);
    });
  }

  /** Bytes for standard input; resolves when they left this process. Needs `stdin: true` in the command. */
  async write(data: Uint8Array): Promise<void> {
    await this.pid;
    for (let start = 0; start < data.length; start += INPUT_BYTES_MAX) {
      await this.#send({ type: 'stdin', ...encodeBytes(data.subarray(start, start + INPUT_BYTES_MAX)) });
    }
  }

  async closeStdin(): Promise<void> {
    await this.pid;
    await this.#send({ type: 'stdin_close' });
  }

  /** A new size for the terminal of a command with `pty`. */
  async resize(size: TerminalSize): Promise<void> {
    await this.pid;
    await this.#send({ type: 'resize', ...size });
  }

  /** Ends the process; `result` still tells how it ended. */
  async stop(): Promise<void> {
    await this.pid;
    await this.#send({ type: 'stop' });
  }

  /** Hangs up, which stops the process too. */
  close(): void {
    this.#socket.terminate();
  }

  /** Drops the output that was not read and waits for the end. */
  wait(): Promise<ExecEnd> {
    this.#discard();
    return this.result;
  }

  /** Ends with the command, or throws what `result` rejects with. Output has to be read, or the command will wait. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Output> {
    try {
      for (;;) {
        const chunk = this.#waiting.shift();
        if (this.#waiting.length < WAITING_MAX && this.#socket.isPaused) this.#socket.resume();
        if (chunk) yield chunk;
        else if (this.#ended) break;
        else await this.#news();
      }
      await this.result;
    } finally {
      this.#discard();
    }
  }

  #news(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #read(text: string): void {
    try {
      this.#take(StreamOutput.parse(JSON.parse(text)));
    } catch (error) {
      this.#end(new ThawError('agent_error', 'Thaw sent a message that makes no sense', { cause: error }));
      this.#socket.terminate();
    }
  }

  #take(message: StreamOutput): void {
    switch (message.type) {
      case 'start':
        this.#pid.resolve(message.pid);
        break;
      case 'stdout':
      case 'stderr':
        if (this.#discarding) break;
        this.#waiting.push({ stream: message.type, data: decodeBytes(message.data, message.encoding) });
        if (this.#waiting.length >= WAITING_MAX) this.#socket.pause();
        this.#wake?.();
        break;
      case 'exit':
        this.#end({
          exitCode: message.exit_code,
          ...(message.error !== undefined && { error: message.error }),
        });
        break;
      case 'error':
        // The command may go on: what could not be done for it is no end. Where it is one, the server closes.
        this.#error = new ThawError(isErrorKind(message.code) ? message.code : 'agent_error', message.data);
        break;
    }
  }

  #discard(): void {
    this.#discarding = true;
    this.#waiting.length = 0;
    if (this.#socket.isPaused) this.#socket.resume();
  }

  async #refused(response: AsyncIterable<Buffer> & { statusCode?: number }): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk);
    let error = new ThawError('agent_error', `HTTP ${response.statusCode}`);
    try {
      const body = JSON.parse(Buffer.concat(chunks).toString());
      if (isErrorKind(body.error.code)) error = new ThawError(body.error.code, String(body.error.message));
    } catch {
      // Not an answer of Thaw: its status is all there is.
    }
    this.#end(error);
    this.#socket.terminate();
  }

  #end(how: ExecEnd | ThawError): void {
    if (this.#ended) return;
    this.#ended = true;
    if (how instanceof ThawError) {
      this.#pid.reject(how);
      this.#result.reject(how);
    } else {
      this.#result.resolve(how);
    }
    this.#wake?.();
  }

  #send(message: StreamInput): Promise<void> {
    return new Promise((resolve, reject) => {
      // After the end nobody reads what is sent: the process is gone.
      if (this.#ended) return resolve();
      this.#socket.send(JSON.stringify(message), (error) => {
        if (!error || this.#ended) return resolve();
        reject(new ThawError('unavailable', 'the connection broke', { cause: error }));
      });
    });
  }
}
