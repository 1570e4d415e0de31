/**
 * Headers as they go on: all of them as they came, in their order and spelling, but for those that are of one connection
 * only (RFC 9110, 7.6.1) and those that HTTP/2 has in another form (RFC 9113, 8.2-8.3).
 */
import type { IncomingMessage } from 'node:http';
import type { Ingress } from '../db/schema.ts';
import { type Address, AGENT_PORT } from './address.ts';

const OF_CONNECTION = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
];
/** Without a body they say so. */
const WITH_BODY = new Set(['POST', 'PUT', 'PATCH']);

/** In a masked host. */
const PORT_HERE = '$' + '{PORT}';

/** Names and values in turn. */
export type HeaderList = string[];

export interface Onward {
  headers: HeaderList;
  /** Whether a body follows, also an empty one. */
  body: boolean;
}

/** Of a request to a guest. `upgrade` is what it asks to change to. */
export function requestHeaders(
  request: IncomingMessage,
  to: Address,
  ingress: Ingress,
  upgrade?: string,
): Onward {
  const host = hostOf(request);
  const masked =
    to.port === AGENT_PORT ? undefined : ingress.mask_request_host?.replaceAll(PORT_HERE, `${to.port}`);
  const dropped = connectionHeaders(request);
  dropped.add('host');
  if (masked !== undefined) dropped.add('x-forwarded-host');
  const headers: HeaderList = ['Host', masked ?? host];
  if (masked !== undefined) headers.push('X-Forwarded-Host', host);
  const crumbs: string[] = [];
  const { rawHeaders, httpVersionMajor } = request;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const [name, value] = [rawHeaders[index]!, rawHeaders[index + 1]!];
    const lower = name.toLowerCase();
    if (name.startsWith(':') || dropped.has(lower)) continue;
    if (httpVersionMajor === 2 && lower === 'cookie') crumbs.push(value);
    else headers.push(name, value);
  }
  if (crumbs.length > 0) headers.push('cookie', crumbs.join('; '));
  if (upgrade !== undefined) headers.push('Connection', 'Upgrade', 'Upgrade', upgrade);
  return { headers, body: upgrade === undefined && frame(request, headers) };
}

/** Says how long the body is, in a way that HTTP/1.1 knows. */
function frame(request: IncomingMessage, headers: HeaderList): boolean {
  const { method = '', headers: asked, httpVersionMajor } = request;
  if (asked['content-length'] !== undefined) return true;
  const endless = httpVersionMajor === 2 ? !hasEnded(request) : asked['transfer-encoding'] !== undefined;
  if (endless) headers.push('Transfer-Encoding', 'chunked');
  else if (WITH_BODY.has(method)) headers.push('Content-Length', '0');
  return endless;
}

/** Of HTTP/2: the head was all. */
function hasEnded(request: IncomingMessage): boolean {
  const { stream } = request as IncomingMessage & { stream?: { endAfterHeaders?: boolean } };
  return stream?.endAfterHeaders === true;
}

/** Of a guest's answer to a client, whose protocol has `major` as its version. */
export function responseHeaders(response: IncomingMessage, major: number): HeaderList {
  const dropped = connectionHeaders(response);
  const headers: HeaderList = [];
  const { rawHeaders } = response;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]!;
    if (!dropped.has(name.toLowerCase()))
      headers.push(major === 2 ? name.toLowerCase() : name, rawHeaders[index + 1]!);
  }
  return headers;
}

export function hostOf(request: IncomingMessage): string {
  const { ':authority': authority, host } = request.headers;
  return (typeof authority === 'string' ? authority : host) ?? '';
}

/** Those that are not for whoever comes behind: the well-known ones, and what `Connection` names. */
function connectionHeaders({ headers }: IncomingMessage): Set<string> {
  const named = headers.connection?.toLowerCase().split(',') ?? [];
  return new Set([...OF_CONNECTION, ...named.map((name) => name.trim())]);
}
