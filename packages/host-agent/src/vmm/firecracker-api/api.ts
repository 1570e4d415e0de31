/**
 * Firecracker's API: HTTP over a Unix socket, one request at a time. Facts: `src/firecracker/swagger/firecracker.yaml`
 * in Firecracker's sources.
 *
 * Each call has a time limit. One that is not answered in time leaves the process in a state that nobody knows: `stuck`
 * is emitted, the process is to be killed, and every later call fails.
 */
import { EventEmitter } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { FirecrackerError, outcomeOf, reasonOf, wordsOf } from './refusal.ts';
import { parseVersion, sendable, type Version } from './version.ts';

export type Method = 'GET' | 'PUT' | 'PATCH';

/** A request that changes something. */
export interface Call {
  method: 'PUT' | 'PATCH';
  path: string;
  body: Readonly<Record<string, unknown>>;
}

export function put(path: string, body: Call['body']): Call {
  return { method: 'PUT', path, body };
}

export type InstanceState = 'Not started' | 'Running' | 'Paused';

interface Events {
  stuck: [];
}

const CALL_TIMEOUT_MS = 5000;
const ANSWER_BYTES_MAX = 1 << 20;

const versionSchema = z.object({ firecracker_version: z.string() });
const instanceSchema = z.object({ state: z.enum(['Not started', 'Running', 'Paused']) });

export class FirecrackerApi extends EventEmitter<Events> {
  readonly #socket: string;
  readonly #agent: http.Agent;
  #version: Version | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #end: 'stuck' | 'closed' | undefined;

  private constructor(socket: string) {
    super();
    this.#socket = socket;
    this.#agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  }

  /** Waits until something listens at `socket`, and asks it for its version. `timeoutMs` in all. */
  static async open(socket: string, timeoutMs: number, signal?: AbortSignal): Promise<FirecrackerApi> {
    const deadline = performance.now() + timeoutMs;
    for (let pauseMs = 1; !(await listens(socket)); pauseMs = Math.min(2 * pauseMs, 20)) {
      if (signal?.aborted || performance.now() > deadline)
        throw new FirecrackerError(
          'open',
          signal?.aborted ? 'gone' : 'timeout',
          'unknown',
          `nobody at ${socket}`,
        );
      await sleep(pauseMs);
    }
    const api = new FirecrackerApi(socket);
    try {
      await api.version();
      return api;
    } catch (error) {
      api.close();
      throw error;
    }
  }

  async version(): Promise<Version> {
    if (this.#version === undefined) {
      const { firecracker_version: text } = versionSchema.parse(
        await this.#ask('GET', '/version', undefined),
      );
      this.#version = parseVersion(text);
      if (this.#version === undefined)
        throw new FirecrackerError('GET /version', 'refused', 'unknown', `version ${text}`);
    }
    return this.#version;
  }

  async state(): Promise<InstanceState> {
    return instanceSchema.parse(await this.#ask('GET', '/', undefined)).state;
  }

  /** Throws `FirecrackerError`. Fields that this version does not know are left out or refused, never sent. */
  async call({ method, path, body }: Call, timeoutMs = CALL_TIMEOUT_MS): Promise<void> {
    const fields = sendable(await this.version(), `${method} ${path}`, body);
    await this.#ask(method, path, fields, timeoutMs);
  }

  /** Calls in order, up to the first that fails. */
  async calls(calls: readonly Call[]): Promise<void> {
    for (const call of calls) await this.call(call);
  }

  /** Hangs up. Nothing is asked afterwards. */
  close(): void {
    this.#end ??= 'closed';
    this.#agent.destroy();
  }

  /** A slow call blocks all others, so the time of one begins when it is its turn. */
  #ask(
    method: Method,
    path: string,
    body: object | undefined,
    timeoutMs = CALL_TIMEOUT_MS,
  ): Promise<unknown> {
    const turn = this.#queue.then(() => this.#send(method, path, body, timeoutMs));
    this.#queue = turn.catch(() => {});
    return turn;
  }

  async #send(method: Method, path: string, body: object | undefined, timeoutMs: number): Promise<unknown> {
    const call = `${method} ${path}`;
    if (this.#end !== undefined) throw new FirecrackerError(call, 'gone', 'unknown', this.#end);
    const answer = await this.#exchange(method, path, body, timeoutMs).catch((error: Error) => {
      if (error.name !== 'TimeoutError') throw new FirecrackerError(call, 'gone', 'unknown', error.message);
      this.#end = 'stuck';
      this.#agent.destroy();
      this.emit('stuck');
      throw new FirecrackerError(call, 'timeout', 'unknown', `no answer in ${timeoutMs} ms`);
    });
    if (answer.status < 300) return answer.text === '' ? undefined : JSON.parse(answer.text);
    const words = wordsOf(answer.text);
    const reason = reasonOf(words);
    throw new FirecrackerError(call, outcomeOf(call, reason), reason, words);
  }

  #exchange(
    method: Method,
    path: string,
    body: object | undefined,
    timeoutMs: number,
  ): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
      const headers =
        payload === undefined
          ? { accept: 'application/json' }
          : {
              accept: 'application/json',
              'content-type': 'application/json',
              'content-length': payload.length,
            };
      const request = http.request({ socketPath: this.#socket, agent: this.#agent, method, path, headers });
      const timer = setTimeout(() => {
        const late = new Error('no answer');
        late.name = 'TimeoutError';
        request.destroy(late);
        reject(late);
      }, timeoutMs);
      const fail = (error: Error) => {
        clearTimeout(timer);
        reject(error);
      };
      request.on('error', fail);
      request.on('response', (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (part: string) => {
          text += part;
          if (text.length > ANSWER_BYTES_MAX) request.destroy(new Error('the answer is too long'));
        });
        response.on('error', fail);
        response.on('end', () => {
          clearTimeout(timer);
          resolve({ status: response.statusCode ?? 0, text });
        });
      });
      request.end(payload);
    });
  }
}

function listens(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = net.connect(socket);
    connection.once('connect', () => {
      connection.destroy();
      resolve(true);
    });
    connection.once('error', () => resolve(false));
  });
}
