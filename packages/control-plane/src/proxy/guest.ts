/**
 * Connections to guests. They are kept for the next request, one sandbox's apart from every other's: the address may be
 * another sandbox's a moment after this one has left it.
 */
import http from 'node:http';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls, type TLSSocket } from 'node:tls';

/** Where a guest's port is for this process. */
export interface Place {
  host: string;
  port: number;
}

/** A service that has just begun to listen, on the guest's loopback perhaps, is reachable within a second. */
const TRY_AGAIN_AFTER_MS = [100, 200, 300, 400];
const CONNECT_WITHIN_MS = 10_000;
/** A connection that nobody uses so long is closed; services keep theirs for longer, most of them. */
const KEEP_FOR_MS = 4_000;
const KEEP_MAX = 64;
const PEER_CHECK_MS = 30_000;

/** No connection came about. */
export class NoConnection extends Error {
  /** Somebody said no: nothing listens there. */
  readonly refused: boolean;

  constructor(refused: boolean, options: { cause?: unknown } = {}) {
    super(refused ? 'refused' : 'no connection', options);
    this.name = 'NoConnection';
    this.refused = refused;
  }
}

interface ConnectOptions extends http.ClientRequestArgs {
  overTls?: boolean;
  allowHalfOpen?: boolean;
}

/** `http.request` takes these besides its own. */
export function requestOptions(how: Pick<ConnectOptions, 'overTls' | 'allowHalfOpen'>): ConnectOptions {
  return { ...how, setHost: false, maxHeaderSize: HEADER_BYTES_MAX };
}

/** Of a request or an answer: cookies of a whole company. */
export const HEADER_BYTES_MAX = 64 * 1024;

export class GuestAgent extends http.Agent {
  readonly #gone: AbortSignal;

  /**
   * `gone` ends connecting; connections are ended by `destroy`. With none kept, a service is still not told to close:
   * it might do so before it has read all.
   */
  constructor(gone: AbortSignal, keeps: boolean) {
    const maxFreeSockets = keeps ? KEEP_MAX : 0;
    const kept = { keepAlive: true, keepAliveMsecs: PEER_CHECK_MS, timeout: KEEP_FOR_MS };
    super({ ...kept, maxFreeSockets, scheduling: 'lifo' });
    this.#gone = gone;
  }

  override getName(options: ConnectOptions): string {
    return `${super.getName(options)}:${options.overTls === true}`;
  }

  override createConnection(
    options: ConnectOptions,
    done?: (error: Error | null, socket: Duplex) => void,
  ): undefined {
    const { host, port, overTls = false, allowHalfOpen = false } = options;
    const made = connectGuest({ host: host!, port: Number(port), allowHalfOpen }, overTls, this.#gone);
    made.then(
      (socket) => done?.(null, socket),
      (error: Error) => done?.(error, undefined as unknown as Duplex),
    );
  }
}

/** Throws `NoConnection`. */
export async function connectGuest(
  place: Place & { allowHalfOpen: boolean },
  overTls: boolean,
  gone: AbortSignal,
): Promise<Socket> {
  for (const afterMs of [...TRY_AGAIN_AFTER_MS, undefined]) {
    try {
      const socket = await once(connect({ ...place, noDelay: true }), 'connect', gone);
      socket.setKeepAlive(true, PEER_CHECK_MS);
      return overTls ? await secured(socket, gone) : socket;
    } catch (error) {
      const refused = (error as NodeJS.ErrnoException).code === 'ECONNREFUSED';
      if (!refused || afterMs === undefined) throw new NoConnection(refused, { cause: error });
    }
    await sleep(afterMs, undefined, { signal: gone }).catch(() => {});
    if (gone.aborted) throw new NoConnection(false);
  }
  throw new NoConnection(true);
}

/** Whoever the certificate names: nobody but this sandbox is at the other end. */
function secured(socket: Socket, gone: AbortSignal): Promise<TLSSocket> {
  const tls = connectTls({ socket, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] });
  return once(tls, 'secureConnect', gone);
}

async function once<T extends Socket>(socket: T, event: string, gone: AbortSignal): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const late = setTimeout(() => reject(new Error('no answer in time')), CONNECT_WITHIN_MS);
  const left = () => reject(new Error('the sandbox is gone'));
  gone.addEventListener('abort', left);
  if (gone.aborted) left();
  socket.once(event, resolve).once('error', reject);
  try {
    await promise;
    return socket;
  } catch (error) {
    socket.on('error', () => {}).destroy();
    throw error;
  } finally {
    clearTimeout(late);
    gone.removeEventListener('abort', left);
    socket.off('error', reject);
  }
}
