/** Guests for tests: small real servers on loopback addresses of their own, and clients that look closely. */
import { once } from 'node:events';
import http from 'node:http';
import net, { type AddressInfo, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { moveSandbox, type SandboxPatch } from '../sandbox/table.ts';
import type { TestPlane } from '../testing.ts';

let last = 0;

/** One that no other test of this machine has, as far as chance goes. */
export function newAddress(): string {
  last += 1;
  return `127.${1 + (process.pid % 250)}.${(process.pid >> 8) % 250}.${last}`;
}

export interface Service extends AsyncDisposable {
  host: string;
  port: number;
  /** Connections that were made. */
  connections: number;
  sockets: Set<Socket>;
}

/** A service at `host`, at `port` or a free one. */
export async function service(host: string, server: http.Server | net.Server, port = 0): Promise<Service> {
  const sockets = new Set<Socket>();
  const own: Service = {
    host,
    port,
    connections: 0,
    sockets,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
  for (const event of ['connection', 'secureConnection'])
    server.on(event, (socket: Socket) => {
      if (event === 'connection') own.connections += 1;
      sockets.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => sockets.delete(socket));
    });
  server.listen({ host, port });
  await once(server, 'listening');
  own.port = (server.address() as AddressInfo).port;
  return own;
}

/** A running sandbox whose guest is at `host`. */
export async function sandboxAt(
  plane: TestPlane,
  host: string,
  patch: SandboxPatch = {},
  wish: object = {},
): Promise<string> {
  const id = await plane.createSandbox({ timeout_sec: 0, ...wish });
  await moveSandbox(plane.running.plane.db, id, ['running'], { host_ip: host, ...patch });
  return id;
}

export interface Ask {
  /** Of the proxy, `http://…`. */
  proxy: string;
  host?: string;
  method?: string;
  path?: string;
  headers?: Record<string, string> | string[];
  body?: string | Buffer;
  agent?: http.Agent;
}

export interface Told {
  status: number;
  headers: http.IncomingHttpHeaders;
  raw: string[];
  body: string;
}

export async function ask(wish: Ask): Promise<Told> {
  const response = await open(wish);
  const body = await text(response);
  return { status: response.statusCode ?? 0, headers: response.headers, raw: response.rawHeaders, body };
}

/** Answers when the head of the answer is there. */
export function open({
  proxy,
  host,
  headers = {},
  body,
  path = '/',
  agent,
  method = 'GET',
}: Ask): Promise<http.IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
  const { hostname, port } = new URL(proxy);
  const own = Array.isArray(headers) ? headers : { ...(host && { Host: host }), ...headers };
  http
    .request({ host: hostname, port, method, path, headers: own, agent: agent ?? false })
    .on('response', resolve)
    .on('error', reject)
    .end(body);
  return promise;
}

/** What comes back for these very bytes, until the other side ends the connection, or this one after `withinMs` if it may. */
export async function sayRaw(
  proxy: string,
  bytes: string | Buffer,
  withinMs = 5_000,
  mayHangUp: (heard: string) => boolean = () => true,
): Promise<string> {
  const { hostname, port } = new URL(proxy);
  const socket = net.connect(Number(port), hostname);
  await once(socket, 'connect');
  let heard = '';
  socket.on('data', (piece: Buffer) => {
    heard += piece.toString('latin1');
  });
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  socket.on('error', () => {});
  const late = setInterval(() => mayHangUp(heard) && socket.destroy(), withinMs);
  socket.write(bytes);
  await closed;
  clearInterval(late);
  return heard;
}
