/**
 * QEMU's monitor protocol (docs/interop/qmp-spec in QEMU's sources): JSON lines over a Unix socket. The monitor
 * greets, is told `qmp_capabilities`, then answers commands by id and tells events in between.
 */
import { EventEmitter, once } from 'node:events';
import net from 'node:net';
import { ThawError } from '@thaw/api';

interface Frame {
  QMP?: unknown;
  event?: string;
  data?: Record<string, unknown>;
  id?: number;
  return?: unknown;
  error?: { class: string; desc: string };
}

interface Waiting {
  command: string;
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout;
}

interface Events {
  event: [name: string, data: Record<string, unknown>];
  /** A command got no answer in time: the monitor must not be used any more. */
  stuck: [];
}

const COMMAND_TIMEOUT_MS = 5000;

export class Qmp extends EventEmitter<Events> {
  readonly #socket: net.Socket;
  readonly #waiting = new Map<number, Waiting>();
  #text = '';
  #lastId = 0;
  #greeted: () => void = () => {};

  private constructor(socket: net.Socket) {
    super();
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#take(text));
    socket.on('error', () => {});
    socket.on('close', () => this.#end());
  }

  /** Connects and waits for the greeting, `timeoutMs` in all. */
  static async open(path: string, timeoutMs: number): Promise<Qmp> {
    const signal = AbortSignal.timeout(timeoutMs);
    const socket = net.connect(path);
    const qmp = new Qmp(socket);
    const greeting = new Promise<void>((resolve, reject) => {
      qmp.#greeted = resolve;
      socket.once('close', () => reject(failed('greeting', 'the monitor hung up')));
      signal.addEventListener('abort', () => reject(timedOut('greeting')), { once: true });
    });
    greeting.catch(() => {});
    try {
      await once(socket, 'connect', { signal });
      await greeting;
      await qmp.command('qmp_capabilities');
      return qmp;
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  /** Throws `internal` with the monitor's words as the cause, `timeout` after `timeoutMs`. */
  command(name: string, args: object = {}, timeoutMs = COMMAND_TIMEOUT_MS): Promise<unknown> {
    if (this.#socket.destroyed) return Promise.reject(failed(name, 'the monitor is closed'));
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(timedOut(name));
        this.emit('stuck');
      }, timeoutMs);
      this.#waiting.set(id, { command: name, resolve, reject, timer });
      this.#socket.write(`${JSON.stringify({ execute: name, arguments: args, id })}\r\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
    this.#end();
  }

  #take(text: string): void {
    const lines = (this.#text + text).split('\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) {
      if (line.trim() === '') continue;
      let frame: Frame;
      try {
        frame = JSON.parse(line) as Frame;
      } catch {
        this.close();
        return;
      }
      this.#takeFrame(frame);
    }
  }

  #takeFrame(frame: Frame): void {
    if (frame.QMP !== undefined) this.#greeted();
    if (frame.event !== undefined) this.emit('event', frame.event, frame.data ?? {});
    const waiting = frame.id === undefined ? undefined : this.#waiting.get(frame.id);
    if (frame.id === undefined || waiting === undefined) return;
    this.#waiting.delete(frame.id);
    clearTimeout(waiting.timer);
    if (frame.error === undefined) waiting.resolve(frame.return);
    else waiting.reject(failed(waiting.command, `${frame.error.class}: ${frame.error.desc}`));
  }

  #end(): void {
    for (const { command, reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(failed(command, 'the monitor hung up'));
    }
    this.#waiting.clear();
  }
}

function failed(command: string, reason: string): ThawError {
  return new ThawError('internal', 'the VM failed', { cause: `${command}: ${reason}` });
}

function timedOut(command: string): ThawError {
  return new ThawError('timeout', 'the VM did not answer in time', { cause: command });
}
