/**
 * The guest agent's control port: what happens to a VM's identity around a boot, a pause and a restore.
 * Each call may be repeated: the guest applies an `/init` once for each counter.
 */
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { ThawError } from '@thaw/api';
import { CONTROL_PORT, type Guest } from './guest.ts';

export interface Identity {
  /** Grows with each start of the VM; a counter that the guest has seen changes nothing. */
  counter: number;
  sandboxId: string;
  templateId: string;
  accessToken: string;
  envVars: Record<string, string>;
  hostname: string;
  /** 32 hex digits. */
  machineId: string;
  /** 64 random bytes, base64. */
  entropy: string;
  defaultUser: string;
  defaultWorkdir: string;
}

/** What became of a guest that was to be frozen; its disk is written unless it said nothing. */
export type Prepared = 'frozen' | 'written' | 'silent';

/** How guests are reached: over the network, or as a test's stand-ins. Each throws what the function of its name throws. */
export interface Guests {
  open(host: string, token: string): Guest;
  init(host: string, identity: Identity, deadlineMs: number, signal?: AbortSignal): Promise<void>;
  prepare(host: string, timeoutMs: number, signal?: AbortSignal): Promise<Prepared>;
  thaw(host: string, timeoutMs: number): Promise<void>;
  rehearse(host: string, timeoutMs: number, signal: AbortSignal): Promise<void>;
}

interface Answer {
  status: number;
  body: string;
}

/** A connection is made within this or tried again: a packet to a guest that has no network yet is lost. */
const CONNECT_TIMEOUT_MS = 60;

function post(host: string, path: string, body: unknown, signal: AbortSignal): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const payload = Buffer.from(JSON.stringify(body));
    const request = http.request({
      host,
      port: CONTROL_PORT,
      path,
      method: 'POST',
      agent: false,
      signal,
      headers: { 'content-type': 'application/json', 'content-length': payload.length },
    });
    request.on('socket', (socket) => {
      const timer = setTimeout(() => request.destroy(new Error('no connection')), CONNECT_TIMEOUT_MS);
      socket.once('connect', () => clearTimeout(timer));
      socket.once('close', () => clearTimeout(timer));
    });
    request.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        if (text.length < 65536) text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(payload);
  });
}

let lastSequence = 0;

/** Numbers the requests: a `/prepare` that was given up and is read late must not freeze a guest that went on. */
function nextSequence(): number {
  lastSequence = Math.max(lastSequence + 1, Date.now());
  return lastSequence;
}

/**
 * Asks until the guest answers; every request of this port may be repeated. Throws `timeout`, or why `signal` was
 * aborted: somebody else may soon answer at the address.
 */
export async function ask(
  host: string,
  path: string,
  body: () => object,
  deadlineMs: number,
  signal?: AbortSignal,
): Promise<Answer> {
  const deadline = performance.now() + deadlineMs;
  for (let failure: unknown; ; ) {
    signal?.throwIfAborted();
    const left = deadline - performance.now();
    if (left <= 0) {
      throw new ThawError('timeout', 'the guest did not answer in time', { cause: failure });
    }
    try {
      const late = AbortSignal.timeout(Math.ceil(left));
      const end = signal === undefined ? late : AbortSignal.any([signal, late]);
      return await post(host, path, { ...body(), sequence: nextSequence() }, end);
    } catch (error) {
      failure = error;
    }
    await sleep(5);
  }
}

/** Twice the time: an agent of an earlier version reads the text. */
export function timestamps(): { timestamp: string; unixUs: number } {
  const now = new Date();
  return { timestamp: now.toISOString(), unixUs: now.getTime() * 1000 };
}

/**
 * Gives the VM its identity, entropy and clock; its users' processes run only afterwards. A VM that is still
 * starting has `deadlineMs` (from now). Throws `timeout`, `agent_error`, or why `signal` was aborted.
 */
export async function init(
  host: string,
  identity: Identity,
  deadlineMs: number,
  signal?: AbortSignal,
): Promise<void> {
  const body = () => ({ ...identity, ...timestamps() });
  const answer = await ask(host, '/init', body, deadlineMs, signal);
  if (answer.status !== 204)
    throw new ThawError('agent_error', 'the guest refused its identity', { cause: answer });
}

/** Freezes the users' processes and syncs the guest's disk, in `timeoutMs` and until `signal`. */
export async function prepare(host: string, timeoutMs: number, signal?: AbortSignal): Promise<Prepared> {
  try {
    const answer = await ask(host, '/prepare', () => ({}), timeoutMs, signal);
    if (answer.status !== 200) return 'silent';
    return (JSON.parse(answer.body) as { frozen?: boolean }).frozen === true ? 'frozen' : 'written';
  } catch {
    return 'silent';
  }
}

/** Lets the users' processes go on with the right time. */
export async function thaw(host: string, timeoutMs: number): Promise<void> {
  const answer = await ask(host, '/thaw', timestamps, timeoutMs);
  if (answer.status !== 204) throw new ThawError('agent_error', 'the guest did not thaw', { cause: answer });
}
