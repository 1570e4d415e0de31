/**
 * One request to a guest and its answer back, as they come: nothing is gathered, nothing is changed. What breaks on the
 * way is broken for the client too: it must never take half an answer for a whole one.
 */
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import { type Address, AGENT_PORT } from './address.ts';
import type { Passage } from './admit.ts';
import { abort } from './client.ts';
import { type Place, requestOptions } from './guest.ts';
import { requestHeaders, responseHeaders } from './headers.ts';
import type { Line } from './line.ts';
import { isOverTls } from './route.ts';

export interface Errand {
  request: IncomingMessage;
  response: ServerResponse;
  /** In origin form. */
  target: string;
  to: Address;
  route: Passage;
  line: Line;
  place: Place;
  /** Called when it reaches the guest; disposed of when it is over. */
  use: () => Disposable;
  /** On a connection that nothing has used before. */
  fresh: boolean;
  /** The client waits for a word before it sends its body. */
  expects: boolean;
}

/** What came of it. */
export type Outcome =
  | { kind: 'done'; status: number; headMs: number }
  /** The client has got a part of an answer, or has left before. */
  | { kind: 'cut' }
  /** The guest has got nothing of it, or nothing that it may not get again; the client neither. */
  | { kind: 'unsent'; error: Error }
  /** The guest has got it, or a part of it, and gave no answer. */
  | { kind: 'unanswered'; error: Error };

/** May be sent twice (RFC 9110, 9.2.1). */
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS']);

/** Throws for a head that can't be sent on. */
export function forward(errand: Errand): Promise<Outcome> {
  const { request, response, to, route, line } = errand;
  const asked = performance.now();
  const { headers, body } = requestHeaders(request, to, route.ingress);
  const repeatable = !body && SAFE.has(request.method ?? '');
  // Our own agent never closes a connection that a request may be under way on.
  const kept = !errand.fresh && (repeatable || to.port === AGENT_PORT);
  const outgoing = http.request({
    ...requestOptions({ overTls: isOverTls(route, to) }),
    ...errand.place,
    method: request.method ?? 'GET',
    path: errand.target,
    headers,
    agent: kept ? line.agent : line.onceAgent,
  });
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  let sent = false;
  let use: Disposable | undefined;
  let answer: IncomingMessage | undefined;
  let finished = false;
  const settle = (outcome: Outcome) => {
    held[Symbol.dispose]();
    use?.[Symbol.dispose]();
    response.off('close', closed);
    request.unpipe(outgoing);
    outgoing.destroy();
    resolve(outcome);
  };
  const fail = (error: Error) => {
    if (response.headersSent) {
      abort(response);
      settle({ kind: 'cut' });
    } else if (!sent || (outgoing.reusedSocket && repeatable && !line.isGone))
      settle({ kind: 'unsent', error });
    else settle({ kind: 'unanswered', error });
  };
  const closed = () => {
    if (finished && answer !== undefined)
      settle({ kind: 'done', status: answer.statusCode ?? 0, headMs: answeredAt - asked });
    else settle({ kind: 'cut' });
  };
  let answeredAt = asked;
  const held = line.hold(() => fail(new Error('the sandbox is gone')));
  response.once('close', closed);
  response.once('finish', () => {
    finished = answer?.complete === true;
  });
  outgoing.on('error', (error) => {
    // Of a whole answer nothing is taken back when the rest of the request has nowhere to go.
    if (answer?.complete !== true) fail(error);
  });
  outgoing.on('socket', () => {
    sent = true;
    use = errand.use();
    if (body) request.pipe(outgoing);
    else outgoing.end();
  });
  if (errand.expects) outgoing.on('continue', () => response.writeContinue());
  outgoing.on('response', (incoming) => {
    answer = incoming;
    answeredAt = performance.now();
    incoming.on('error', fail);
    incoming.on('close', () => {
      if (!incoming.complete) fail(new Error('the answer broke off'));
    });
    try {
      relay(incoming, response);
    } catch (error) {
      fail(error as Error);
    }
  });
  return promise;
}

/** The head at once, also of an answer whose body takes its time; with the body's first piece where that is there. */
export function relay(incoming: IncomingMessage, response: ServerResponse): void {
  response.sendDate = false;
  const major = response.req.httpVersionMajor;
  const headers = responseHeaders(incoming, major);
  const status = incoming.statusCode ?? 502;
  if (major === 2) response.writeHead(status, headers);
  else response.writeHead(status, incoming.statusMessage, headers);
  incoming.on('end', () => {
    if (incoming.rawTrailers.length > 0) response.addTrailers(incoming.trailers as Record<string, string>);
  });
  process.nextTick(() => {
    if (incoming.readableLength === 0 && !incoming.complete) response.flushHeaders();
    incoming.pipe(response);
  });
}
