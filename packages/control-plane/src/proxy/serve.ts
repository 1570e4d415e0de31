/** What clients ask of the proxy's listeners: each request from its head to what became of it. */
import { type IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { requestId } from '../http/request.ts';
import type { Address } from './address.ts';
import { type Asked, admit, destination, type Gate, isWelcome, look, type Passage } from './admit.ts';
import { drain } from './client.ts';
import { forward, type Outcome } from './forward.ts';
import { NoConnection } from './guest.ts';
import { hostOf } from './headers.ts';
import { proxyHeadMs, proxyOpen, proxyRequests } from './metrics.ts';
import { answer, Refusal, refuse } from './refusal.ts';
import { isReachable, staysAt } from './route.ts';
import { tunnel } from './tunnel.ts';

type Send = (errand: {
  route: Passage;
  to: Address;
  target: string;
  use: () => Disposable;
  round: number;
}) => Promise<Outcome>;

/** Who gets nothing of a sandbox does not keep it awake. */
const UNUSED: Disposable = { [Symbol.dispose]() {} };
/** Times that a request is sent anew because its sandbox went away before it was sent. */
const ROUNDS = 4;

export async function serveRequest(
  gate: Gate,
  request: IncomingMessage,
  response: ServerResponse,
  expects: boolean,
): Promise<void> {
  request.on('error', () => {});
  response.on('error', () => {});
  const send: Send = ({ round, ...errand }) =>
    forward({ ...errand, ...lineTo(gate, errand), request, response, expects, fresh: round > 0 });
  proxyOpen.inc({ kind: 'request' });
  await serve(gate, request, response, send);
  proxyOpen.dec({ kind: 'request' });
  drain(request);
}

export async function serveTunnel(
  gate: Gate,
  request: IncomingMessage,
  socket: Socket,
  head: Buffer,
): Promise<void> {
  socket.on('error', () => {});
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.once('finish', () => socket.destroySoon());
  const onOpen = (): Disposable => {
    proxyOpen.inc({ kind: 'tunnel' });
    return { [Symbol.dispose]: () => proxyOpen.dec({ kind: 'tunnel' }) };
  };
  const send: Send = (errand) =>
    tunnel({ ...errand, ...lineTo(gate, errand), request, response, socket, head, onOpen });
  await serve(gate, request, response, send);
}

function lineTo(gate: Gate, { route, to }: { route: Passage; to: Address }) {
  return { line: gate.lines.of(route.id), place: { host: route.hostIp, port: to.port } };
}

/** Sees to one request until it is over; whatever happens, it is answered or cut. */
async function serve(
  gate: Gate,
  request: IncomingMessage,
  response: ServerResponse,
  send: Send,
): Promise<void> {
  const gone = new AbortController();
  const leave = () => gone.abort();
  response.once('close', leave);
  let outcome: Outcome | Refusal;
  try {
    outcome = await attend(gate, request, gone.signal, send);
  } catch (error) {
    if (error instanceof Refusal) outcome = error;
    else outcome = gone.signal.aborted ? { kind: 'cut' } : unexpected(gate, error);
  }
  if (outcome instanceof Refusal) {
    proxyRequests.inc({ by: 'proxy', status: `${outcome.status}` });
    if (gone.signal.aborted || response.headersSent) return;
    answer(response, outcome, request.headers);
    return;
  }
  if (outcome.kind === 'done') {
    proxyRequests.inc({ by: 'guest', status: `${Math.floor(outcome.status / 100)}xx` });
    proxyHeadMs.observe(outcome.headMs);
  } else proxyRequests.inc({ by: 'guest', status: 'cut' });
}

function unexpected({ plane }: Gate, error: unknown): Refusal {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  // What Node.js will not send on: a head that is no HTTP.
  if (/^ERR_(INVALID_CHAR|INVALID_HTTP_TOKEN|UNESCAPED_CHARACTERS|INVALID_ARG)/.test(code))
    return refuse.badRequest('the head of the request is not valid');
  plane.log.error({ err: error }, 'the proxy failed');
  return new Refusal({ message: 'Something went wrong inside', code: 500 });
}

async function attend(
  gate: Gate,
  request: IncomingMessage,
  gone: AbortSignal,
  send: Send,
): Promise<Outcome | Refusal> {
  const asked = askedOf(request, gone);
  const to = destination(gate, asked);
  using place = gate.lines.take(to.sandboxId);
  if (place === undefined) return refuse.tooMany(to.sandboxId, 'Too many connections to this sandbox');
  for (let round = 0; ; round++) {
    const route = await admit(gate, to, asked);
    if (gone.aborted) return { kind: 'cut' };
    const use = () => (isWelcome(route, to, asked) ? gate.plane.activity.during(route.id) : UNUSED);
    const outcome = await send({ route, to, target: asked.target, use, round });
    if (outcome.kind !== 'unsent' && outcome.kind !== 'unanswered') return outcome;
    if (gone.aborted) return { kind: 'cut' };
    const now = await look(gate.directory, route.id);
    const stays = now !== undefined && isReachable(now) && staysAt(route, now);
    if (outcome.kind === 'unanswered')
      return stays ? refuse.silent(route.id, to.port) : leftOf(now, route.id);
    const { error } = outcome;
    if (stays && error instanceof NoConnection) return refuse.closed(route.id, to.port);
    if (round >= ROUNDS) return refuse.moving(route.id);
  }
}

/** What becomes of a request that was under way when its sandbox left. */
function leftOf(now: Passage | { status: string } | undefined, id: string): Refusal {
  return now?.status === 'pausing' ? refuse.moving(id) : refuse.notFound(id);
}

function askedOf(request: IncomingMessage, gone: AbortSignal): Asked {
  const { headers, method = 'GET', url = '/', rawHeaders, httpVersionMajor } = request;
  let hosts = 0;
  if (httpVersionMajor === 1)
    for (let index = 0; index < rawHeaders.length; index += 2)
      if (rawHeaders[index]!.length === 4 && rawHeaders[index]!.toLowerCase() === 'host') hosts += 1;
  if (hosts > 1) throw refuse.badRequest('there is more than one Host header');
  if (headers['transfer-encoding'] !== undefined && headers['transfer-encoding'].toLowerCase() !== 'chunked')
    throw refuse.badRequest('the only transfer coding known here is chunked');
  const host = hostOf(request);
  return { id: requestId(request), method, target: originForm(url, method, host), headers, gone, host };
}

/** `*` is of OPTIONS. A target that names a host must name the same. */
function originForm(url: string, method: string, host: string): string {
  if (url.startsWith('/') || (url === '*' && method === 'OPTIONS')) return url;
  const [, named, rest] = /^https?:\/\/([^/?#]*)(.*)$/i.exec(url) ?? [];
  if (named === undefined || named.toLowerCase() !== host.toLowerCase())
    throw refuse.badRequest('the target of the request must be a path');
  return rest?.startsWith('/') ? rest : `/${rest ?? ''}`;
}
