/**
 * The proxy's listeners: HTTP/1.1 in clear text, and HTTP/2 or HTTP/1.1 by TLS as the client likes. Idle connections
 * and streams live for longer than anybody's idea of a timeout.
 */
import http from 'node:http';
import http2 from 'node:http2';
import type { AddressInfo, Server, Socket } from 'node:net';
import { ThawError } from '@thaw/api';
import type { TlsMaterial } from '../http/tls.ts';
import { HEADER_BYTES_MAX } from './guest.ts';
import { wantsTunnel } from './tunnel.ts';

export interface Handlers {
  request: (request: http.IncomingMessage, response: http.ServerResponse, expects: boolean) => unknown;
  tunnel: (request: http.IncomingMessage, socket: Socket, head: Buffer) => unknown;
}

export interface ListenOptions {
  at: { host: string; port: number };
  /** Named when the address can't be had. */
  setting: string;
  tls?: TlsMaterial | undefined;
  connectionsMax: number;
}

const KEEP_ALIVE_MS = 660_000;
const HEADERS_TIMEOUT_MS = 60_000;
const PEER_CHECK_MS = 30_000;
/** What a client may send ahead, of one stream and of all streams of a connection. */
const STREAM_WINDOW_BYTES = 1024 * 1024;
const CONNECTION_WINDOW_BYTES = 2 * 1024 * 1024;
/** Of all streams of a connection, with what is on its way to the client; new streams are refused beyond. */
const SESSION_MEMORY_MB = 48;
const STREAMS_MAX = 256;

export interface Listener {
  /** As bound. */
  host: string;
  port: number;
  server: Server;
  /** No more connections; resolves when those that are open are closed, which those that are idle are at once. */
  close(): Promise<void>;
  /** Closes what is left. */
  cut(): void;
}

/** Throws `conflict` when the address is taken. */
export async function listen(handlers: Handlers, options: ListenOptions): Promise<Listener> {
  const server = options.tls === undefined ? plainServer() : tlsServer(options.tls);
  const sockets = new Set<Socket>();
  const sessions = new Set<http2.ServerHttp2Session>();
  server.on('connection', (socket: Socket) => {
    socket.setKeepAlive(true, PEER_CHECK_MS);
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('session', (session: http2.ServerHttp2Session) => {
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
    session.on('error', () => {});
  });
  server.maxConnections = options.connectionsMax;
  attach(server, handlers);
  await bind(server, options);
  const { address: host, port } = server.address() as AddressInfo;
  return {
    host,
    port,
    server,
    close: () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const session of sessions) session.close();
      for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
      return closed;
    },
    cut: () => {
      for (const session of sessions) session.destroy();
      for (const socket of sockets) socket.destroy();
    },
  };
}

const HTTP1 = { maxHeaderSize: HEADER_BYTES_MAX, shouldUpgradeCallback: wantsTunnel };

function plainServer(): http.Server {
  const server = http.createServer(HTTP1);
  return withTimeouts(server);
}

function tlsServer(tls: TlsMaterial): http2.Http2SecureServer {
  const server = http2.createSecureServer({
    ...tls,
    ...HTTP1,
    minVersion: 'TLSv1.2',
    allowHTTP1: true,
    maxSessionMemory: SESSION_MEMORY_MB,
    settings: {
      initialWindowSize: STREAM_WINDOW_BYTES,
      maxConcurrentStreams: STREAMS_MAX,
      maxHeaderListSize: HEADER_BYTES_MAX,
    },
  });
  // A handshake that fails is the client's affair.
  server.on('tlsClientError', (_error, socket) => socket.destroy());
  server.on('sessionError', () => {});
  return withTimeouts(server as http2.Http2SecureServer & http.Server);
}

/** A request may take as long as it likes, its head may not. */
function withTimeouts<T extends http.Server>(server: T): T {
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.requestTimeout = 0;
  server.setTimeout(0);
  return server;
}

function attach(server: Server, { request, tunnel }: Handlers): void {
  type Head = [http.IncomingMessage, http.ServerResponse];
  server.on('request', (...[asked, response]: Head) => request(asked, response, false));
  server.on('checkContinue', (...[asked, response]: Head) => request(asked, response, true));
  server.on('checkExpectation', (...[asked, response]: Head) => request(asked, response, false));
  server.on('upgrade', tunnel);
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
    const line =
      error.code === 'HPE_HEADER_OVERFLOW' ? '431 Request Header Fields Too Large' : '400 Bad Request';
    socket.end(`HTTP/1.1 ${line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
  });
}

async function bind(server: Server, { at, setting }: ListenOptions): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(at, resolve);
  try {
    await promise;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const where = `${setting} is ${at.host.includes(':') ? `[${at.host}]` : at.host}:${at.port}`;
    const why =
      code === 'EADDRINUSE'
        ? 'another program listens there: end it, or choose another address'
        : code === 'EADDRNOTAVAIL'
          ? 'this machine has no such address'
          : code === 'EACCES'
            ? 'the user that the control plane runs as may not listen there'
            : (error as Error).message;
    throw new ThawError('conflict', `${where}: ${why}`, { cause: error });
  } finally {
    server.off('error', reject);
  }
}
