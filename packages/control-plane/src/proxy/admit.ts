/** Who comes in: from a request's head to a sandbox that can be reached, woken if it may be. Throws a `Refusal`. */
import type { IncomingHttpHeaders } from 'node:http';
import { ThawError } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { type Address, AGENT_PORT, addressOf, CONTROL_PORT, isInternalPath } from './address.ts';
import { type Directory, TooManyLooks } from './directory.ts';
import type { Lines } from './line.ts';
import { type Refusal, refuse } from './refusal.ts';
import { isReachable, type Route, restOf } from './route.ts';
import { isOver, isSameToken, isSignedWith, type Signed, signedOf } from './signature.ts';
import type { Signatures } from './signatures.ts';
import type { Wakes } from './wake.ts';

export interface Gate {
  plane: Plane;
  directory: Directory;
  lines: Lines;
  wakes: Wakes;
  signatures: Signatures;
}

/** What a request says before its body. */
export interface Asked {
  id: string;
  method: string;
  /** With its port. */
  host: string;
  /** In origin form, or `*`. */
  target: string;
  headers: IncomingHttpHeaders;
  /** Aborted when the client is gone. */
  gone: AbortSignal;
}

export type Passage = Route & { hostIp: string };

/** Pauses and resumes that may come between before the client is told to try again. */
const TRIES = 8;
const TRAFFIC_TOKEN = 'e2b-traffic-access-token';

/** Where it wants to go; wakes nothing. */
export function destination(gate: Gate, asked: Asked): Address {
  const found = addressOf(asked.host, asked.headers);
  switch (found.kind) {
    case 'bad':
      throw refuse.badRequest(found.why);
    case 'shared':
      return bySignature(gate, asked);
    case 'address':
      if (found.address.port === AGENT_PORT && isInternalPath(asked.target))
        throw refuse.internalPath(asked.target.split('?', 1)[0]!);
      return found.address;
  }
}

/** A signed URL of a host that is everybody's names no sandbox, but only one sandbox's token makes its signature. */
function bySignature({ signatures }: Gate, { method, target }: Asked): Address {
  const signed = signedOf(method, target);
  if (signed === undefined)
    throw refuse.badRequest(
      'no sandbox is named: by the headers E2b-Sandbox-Id and E2b-Sandbox-Port, or by the host {port}-{sandbox}.{domain}',
    );
  const sandboxId = signatures.owner(signed);
  if (sandboxId === undefined) throw refuse.badRequest('the signature is of no sandbox that there is');
  return { sandboxId, port: AGENT_PORT };
}

export async function admit(gate: Gate, to: Address, asked: Asked): Promise<Passage> {
  const { directory } = gate;
  for (let tried = 0; tried < TRIES; tried++) {
    let route = directory.find(to.sandboxId);
    if (route === undefined || !isReachable(route)) route = await look(directory, to.sandboxId);
    if (route === undefined) throw refuse.notFound(to.sandboxId);
    if (isReachable(route)) {
      requireTrafficToken(route, to, asked);
      if (to.port === CONTROL_PORT) throw refuse.closed(route.id, to.port);
      return route;
    }
    await awaken(gate, route, to, asked);
  }
  throw refuse.moving(to.sandboxId);
}

/** The route by the database. */
export async function look(directory: Directory, id: string): Promise<Route | undefined> {
  try {
    return await directory.look(id);
  } catch (error) {
    if (error instanceof TooManyLooks) throw refuse.tooMany(id, 'Too many requests, try again');
    throw error instanceof ThawError && error.kind === 'unavailable' ? refuse.away(id) : error;
  }
}

async function awaken(gate: Gate, route: Route, to: Address, asked: Asked): Promise<void> {
  const rest = restOf(route);
  if (rest === 'gone') throw refuse.notFound(route.id);
  if (rest === 'moving') throw refuse.moving(route.id);
  requireTrafficToken(route, to, asked);
  if (!isWelcome(route, to, asked)) throw preflightOf(asked) ?? refuse.wake(route.id);
  // Nothing there is for clients, so nothing is started for it.
  if (to.port === CONTROL_PORT) throw refuse.notFound(route.id);
  try {
    await gate.wakes.wake(route, asked.id, asked.gone);
  } catch (error) {
    if (asked.gone.aborted || !(error instanceof ThawError)) throw error;
    switch (error.kind) {
      case 'exhausted':
        throw refuse.tooMany(route.id, error.message);
      case 'conflict':
        throw refuse.moving(route.id);
      case 'unavailable':
        throw refuse.away(route.id);
      default:
        throw refuse.notResumed(route.id);
    }
  }
}

/** The guest agent has a token of its own. */
function requireTrafficToken(route: Route, { port }: Address, { headers }: Asked): void {
  if (port === AGENT_PORT || route.ingress.allow_public_traffic !== false) return;
  if (route.trafficToken === null || !isSameToken(headers[TRAFFIC_TOKEN], route.trafficToken))
    throw refuse.traffic(route.id);
}

/** A browser asks first whether it may ask; the sandbox need not be awake for that. */
function preflightOf({ method, headers }: Asked): Refusal | undefined {
  const wanted = headers['access-control-request-method'];
  if (method !== 'OPTIONS' || wanted === undefined) return undefined;
  return refuse.preflight(wanted, headers['access-control-request-headers'] ?? '*');
}

/** The agent would refuse who has no token: nobody wakes a sandbox only to be refused, nor keeps it from being idle. */
export function isWelcome({ accessToken }: Route, { port }: Address, asked: Asked): boolean {
  if (port !== AGENT_PORT || accessToken === null) return true;
  const given = asked.headers['x-access-token'];
  if (given !== undefined) return isSameToken(given, accessToken);
  return isSignedNow(signedOf(asked.method, asked.target), accessToken);
}

function isSignedNow(signed: Signed | undefined, token: string): boolean {
  return signed !== undefined && !isOver(signed) && isSignedWith(signed, token);
}
