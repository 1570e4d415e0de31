/** A WebSocket as messages in and messages out, both with back-pressure, closed with a reason. */
import { type StreamOutput, ThawError } from '@thaw/api';
import type { RawData, WebSocket } from 'ws';

/** Messages that may wait to be read before the socket is paused. */
const WAITING_MAX = 16;
const REASON_BYTES_MAX = 120;

export class Messages {
  readonly #socket: WebSocket;
  readonly #waiting: string[] = [];
  #wake: (() => void) | undefined;
  #closed = false;

  /** Listens from now on: it must be made in the turn in which the socket was opened. */
  constructor(socket: WebSocket, pingEveryMs: number) {
    this.#socket = socket;
    socket.on('message', (data, isBinary) => this.#take(data, isBinary));
    socket.on('close', () => {
      this.#closed = true;
      this.#wake?.();
    });
    this.#keepAlive(pingEveryMs);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The next message, or undefined when the client is gone. */
  async next(): Promise<string | undefined> {
    while (this.#waiting.length === 0 && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const message = this.#waiting.shift();
    if (this.#waiting.length < WAITING_MAX && this.#socket.isPaused) this.#socket.resume();
    return message;
  }

  /** Resolves when the bytes left this process, so that a slow reader slows the sender. */
  send(message: StreamOutput): Promise<void> {
    return new Promise((resolve) => {
      if (this.#closed) return resolve();
      this.#socket.send(JSON.stringify(message), () => resolve());
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

  #take(data: RawData, isBinary: boolean): void {
    if (isBinary) return void this.fail(new ThawError('invalid_request', 'messages are JSON text'));
    this.#waiting.push(data.toString());
    if (this.#waiting.length >= WAITING_MAX) this.#socket.pause();
    this.#wake?.();
  }

  /** A peer that answers no ping for two rounds is gone, whatever TCP believes. */
  #keepAlive(everyMs: number): void {
    let unanswered = 0;
    const timer = setInterval(() => {
      // While paused no answer can arrive; the ping still finds out that the connection is gone.
      if (!this.#socket.isPaused) {
        if (unanswered >= 2) return this.#socket.terminate();
        unanswered += 1;
      }
      this.#socket.ping();
    }, everyMs);
    this.#socket.on('pong', () => {
      unanswered = 0;
    });
    this.#socket.on('close', () => clearInterval(timer));
  }
}
