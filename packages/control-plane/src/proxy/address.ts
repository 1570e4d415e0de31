/**
 * Which port of which sandbox a request is for. Pure.
 *
 * Where everything has one name (`localhost`, an address, a name that begins with `sandbox.`), the headers
 * `E2b-Sandbox-Id` and `E2b-Sandbox-Port` tell. Anywhere else the first label of the host does:
 * `{port}-{sandbox}.{domain}`, whatever the domain is; what follows a further `-` is for others.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';

/** The guest agent's port for clients. */
export const AGENT_PORT = 49_983;
/** The guest agent's port for the host: nobody else may know that it is there. */
export const CONTROL_PORT = 49_982;

export interface Address {
  sandboxId: string;
  port: number;
}

/** `shared`: a host that is everybody's, and no header that tells more. */
export type Found = { kind: 'address'; address: Address } | { kind: 'shared' } | { kind: 'bad'; why: string };

const LABEL = /^(\d{1,5})-([a-z0-9]{1,63})(?:-.*)?$/;

/** `host` may have a port. */
export function addressOf(host: string, headers: IncomingHttpHeaders): Found {
  const name = nameOf(host);
  if (name === undefined) return bad('the Host header is not valid');
  const shared = isShared(name);
  const { 'e2b-sandbox-id': id, 'e2b-sandbox-port': port } = headers;
  if (shared && (id !== undefined || port !== undefined)) return byHeaders(id, port);
  const labelEnd = name.indexOf('.');
  const label = LABEL.exec(labelEnd < 0 ? '' : name.slice(0, labelEnd));
  if (label !== null) return address(label[2]!, label[1]!);
  if (shared) return { kind: 'shared' };
  return bad('the host must be {port}-{sandbox}.{domain}');
}

/** Lower-case, without the port; undefined for what can be no host. */
function nameOf(host: string): string | undefined {
  const match = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?$/i.exec(host);
  return match?.[1]?.toLowerCase();
}

function isShared(name: string): boolean {
  if (name === 'localhost' || name.startsWith('sandbox.')) return true;
  return isIP(name.replace(/^\[|\]$/g, '')) !== 0;
}

function byHeaders(id: string | string[] | undefined, port: string | string[] | undefined): Found {
  if (typeof id !== 'string') return bad('the header E2b-Sandbox-Id is missing');
  if (typeof port !== 'string') return bad('the header E2b-Sandbox-Port is missing');
  if (!/^[a-z0-9]{1,63}$/.test(id)) return bad('the header E2b-Sandbox-Id is not valid');
  if (!/^\d{1,5}$/.test(port)) return bad('the header E2b-Sandbox-Port is not valid');
  return address(id, port);
}

function address(sandboxId: string, digits: string): Found {
  const port = Number(digits);
  if (port < 1 || port > 65_535) return bad(`${port} is no port`);
  return { kind: 'address', address: { sandboxId, port } };
}

function bad(why: string): Found {
  return { kind: 'bad', why };
}

/** What the host says to the guest agent, and nobody else may. */
const INTERNAL = new Set(['/init', '/freeze', '/unfreeze', '/collapse', '/fsfreeze', '/fsthaw', '/upgrade']);

/** `target` is a request's, in origin form. However it is spelled: a server may undo every one of these. */
export function isInternalPath(target: string): boolean {
  let path = target.split(/[?#]/, 1)[0]!;
  // Twice encoded is once too often for any server that is not broken, so once more than that.
  for (let round = 0; round < 3 && path.includes('%'); round++) {
    try {
      path = decodeURIComponent(path);
    } catch {
      break;
    }
  }
  const parts: string[] = [];
  for (const raw of path.replaceAll('\\', '/').split('/')) {
    const part = raw.split(';', 1)[0]!.trim().toLowerCase();
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return INTERNAL.has(`/${parts.join('/')}`);
}
