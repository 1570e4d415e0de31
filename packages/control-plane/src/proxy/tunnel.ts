/** WebSockets, and whatever else a connection is changed to: once the guest agrees, bytes go both ways until an end. */
import http, { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { reset } from './client.ts';
import { type Errand, type Outcome, relay } from './forward.ts';
import { requestOptions } from './guest.ts';
import { requestHeaders, responseHeaders } from './headers.ts';
import { isOverTls } from './route.ts';

export interface TunnelErrand extends Omit<Errand, 'fresh' | 'expects'> {
  /** The client's connection, and what it has sent after its request. */
  socket: Socket;
  head: Buffer;
  onOpen: () => Disposable;
}

const PEER_CHECK_MS = 30_000;

/** A connection is changed for requests without a body, to anything but another version of HTTP. */
export function wantsTunnel({ headers, method }: IncomingMessage): boolean {
  if (headers['content-length'] !== undefined && headers['content-length'] !== '0') return false;
  if (headers['transfer-encoding'] !== undefined || method === 'CONNECT') return false;
  return headers.upgrade !== undefined && !/^(h2c|http\/)/i.test(headers.upgrade);
}

/** `response` is only for an answer that refuses. Throws for a head that can't be sent on. */
export function tunnel(errand: TunnelErrand): Promise<Outcome> {
  const { request, response, to, route, line, socket } = errand;
  const asked = performance.now();
  const { headers } = requestHeaders(request, to, route.ingress, request.headers.upgrade);
  const outgoing = http.request({
    // One side may have said all while the other goes on.
    ...requestOptions({ overTls: isOverTls(route, to), allowHalfOpen: true }),
    ...errand.place,
    method: request.method ?? 'GET',
    path: errand.target,
    headers,
    agent: line.onceAgent,
  });
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  let sent = false;
  let use: Disposable | undefined;
  let answered: { status: number; headMs: number } | undefined;
  let guest: Duplex | undefined;
  let broken = false;
  const settle = (outcome: Outcome) => {
    held[Symbol.dispose]();
    use?.[Symbol.dispose]();
    socket.off('close', closed);
    outgoing.destroy();
    guest?.destroy();
    resolve(outcome);
  };
  const fail = (error: Error) => {
    broken = true;
    if (answered === undefined) settle({ kind: sent ? 'unanswered' : 'unsent', error });
    else {
      reset(socket);
      settle({ kind: 'cut' });
    }
  };
  const closed = () => {
    if (answered === undefined || broken) settle({ kind: 'cut' });
    else settle({ kind: 'done', ...answered });
  };
  const held = line.hold(() => fail(new Error('the sandbox is gone')));
  const heard = (incoming: IncomingMessage) => {
    answered = { status: incoming.statusCode ?? 0, headMs: performance.now() - asked };
  };
  socket.once('close', closed);
  outgoing.on('error', (error) => {
    if (answered === undefined) fail(error);
  });
  outgoing.on('socket', () => {
    sent = true;
    use = errand.use();
  });
  outgoing.on('upgrade', (incoming, upgraded, head) => {
    heard(incoming);
    guest = upgraded;
    response.detachSocket(socket);
    join(errand, incoming, upgraded, head, fail);
  });
  outgoing.on('response', (incoming) => {
    heard(incoming);
    incoming.on('error', fail);
    incoming.on('close', () => {
      if (!incoming.complete) fail(new Error('the answer broke off'));
    });
    try {
      refused(incoming, response);
    } catch (error) {
      fail(error as Error);
    }
  });
  outgoing.end();
  return promise;
}

/** The guest does not change the connection: what it says instead is the end of it. */
function refused(incoming: IncomingMessage, response: ServerResponse): void {
  response.shouldKeepAlive = false;
  relay(incoming, response);
}

function join(
  { socket, head, onOpen }: TunnelErrand,
  incoming: IncomingMessage,
  guest: Duplex,
  guestHead: Buffer,
  fail: (error: Error) => void,
): void {
  const open = onOpen();
  socket.once('close', () => open[Symbol.dispose]());
  socket.setTimeout(0).setNoDelay(true).setKeepAlive(true, PEER_CHECK_MS);
  socket.write(headOf(incoming), 'latin1');
  if (guestHead.length > 0) socket.write(guestHead);
  if (head.length > 0) guest.write(head);
  guest.on('error', fail);
  socket.on('error', fail);
  // An end of one side is passed on by the pipe; a close without an end is a break.
  guest.once('close', () => {
    if (guest.readableEnded) socket.destroySoon();
    else fail(new Error('the guest is gone'));
  });
  socket.pipe(guest);
  guest.pipe(socket);
}

function headOf(incoming: IncomingMessage): string {
  const status = incoming.statusCode ?? 101;
  const lines = [`HTTP/1.1 ${status} ${incoming.statusMessage ?? STATUS_CODES[status] ?? ''}`];
  const headers = responseHeaders(incoming, 1);
  for (let index = 0; index < headers.length; index += 2)
    lines.push(`${headers[index]}: ${headers[index + 1]}`);
  lines.push('Connection: Upgrade', `Upgrade: ${incoming.headers.upgrade ?? ''}`);
  return `${lines.join('\r\n')}\r\n\r\n`;
}
