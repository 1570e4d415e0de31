/** A WebSocket as messages in and messages out, both with back-pressure, closed with a reason. */
import { type StreamOutput, ThawError } from '@thaw/api';
import type { RawData, WebSocket } from 'ws';

/** What may wait to be read before the socket is paused. */
const WAITING_MESSAGES_MAX = 64;
const WAITING_CHARS_MAX = 1024 * 1024;
const REASON_BYTES_MAX = 120;
/** Looks at the connection for each ping. */
const TICKS = 4;
/** A client that has output to read may leave it for this long; dead connections are found by TCP long before. */
const UNREAD_MAX_MS = 3_600_000;

export class Messages {
  readonly #socket: WebSocket;
  readonly #waiting: string[] = [];
  readonly #gone = Promise.withResolvers<void>();
  #waitingChars = 0;
  #wake: (() => void) | undefined;
  #closed = false;
  #pings = 0;
  /** How many pings were sent before the last output, and how many are answered. */
  #pingsBeforeOutput = -1;
  #pongs = 0;
  #lastSign = performance.now();

  /** Listens from now on: it must be made in the turn in which the socket was opened. */
  constructor(socket: WebSocket, pingEveryMs: number) {
    this.#socket = socket;
    socket.on('message', (data, isBinary) => this.#take(data, isBinary));
    socket.on('close', () => {
      this.#closed = true;
      this.#gone.resolve();
      this.#wake?.();
    });
    this.#keepAlive(pingEveryMs);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Resolves when the client is gone. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  /** The next message, or undefined when the client is gone. */
  async next(): Promise<string | undefined> {
    while (this.#waiting.length === 0 && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const message = this.#waiting.shift();
    this.#waitingChars -= message?.length ?? 0;
    if (!this.#full && this.#socket.isPaused) this.#socket.resume();
    return message;
  }

  /** Resolves when the bytes left this process, so that a slow reader slows the sender. */
  send(message: StreamOutput): Promise<void> {
    return new Promise((resolve) => {
      if (this.#closed) return resolve();
      if ('encoding' in message) this.#pingsBeforeOutput = this.#pings;
      this.#socket.send(JSON.stringify(message), () => {
        this.#lastSign = performance.now();
        resolve();
      });
    });
  }

  close(code: number, reason: string): void {
    this.#socket.close(code, Buffer.from(reason).subarray(0, REASON_BYTES_MAX).toString('utf8'));
  }

  async fail(error: ThawError): Promise<void> {
    await this.send({ type: 'error', code: error.kind, data: error.message });
    // 1008: the client's fault; 1011: ours.
    this.close(error.status < 500 ? 1008 : 1011, error.kind);
  }

  get #full(): boolean {
    return this.#waiting.length >= WAITING_MESSAGES_MAX || this.#waitingChars >= WAITING_CHARS_MAX;
  }

  #take(data: RawData, isBinary: boolean): void {
    if (isBinary) return void this.fail(new ThawError('invalid_request', 'messages are JSON text'));
    const message = data.toString();
    this.#waiting.push(message);
    this.#waitingChars += message.length;
    if (this.#full) this.#socket.pause();
    this.#wake?.();
  }

  /**
   * A peer that answers no ping for two rounds is gone, whatever TCP believes. Not so one that has output to read: a
   * ping waits behind it for as long as the reader takes.
   */
  #keepAlive(everyMs: number): void {
    let ticks = 0;
    const timer = setInterval(() => {
      // While paused neither an answer nor an end can arrive: pings find out that the connection is gone, soon.
      const listening = !this.#socket.isPaused;
      ticks += 1;
      if (listening && ticks % TICKS !== 0) return;
      const unread = this.#pingsBeforeOutput >= this.#pongs;
      const silentMs = performance.now() - this.#lastSign;
      const dead = unread ? silentMs > UNREAD_MAX_MS : this.#pings - this.#pongs >= 2;
      if (listening && dead) return this.#socket.terminate();
      if (!listening) this.#pongs = this.#pings;
      this.#pings += 1;
      this.#socket.ping(String(this.#pings));
    }, everyMs / TICKS);
    this.#socket.on('pong', (data) => {
      this.#lastSign = performance.now();
      this.#pongs = Math.max(this.#pongs, Math.min(Number(data.toString()) || 0, this.#pings));
    });
    this.#socket.on('close', () => clearInterval(timer));
  }
}
