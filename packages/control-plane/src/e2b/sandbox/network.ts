/** What a sandbox may reach, as clients of the E2B API say it, and the policy that it is. */
import {
  addressSpan,
  DNS_SERVERS_MAX,
  domainsHold,
  isDomain,
  isSpecial,
  NETWORK_LIST_MAX,
  type NetworkPolicy,
  ThawError,
} from '@thaw/api';
import { z } from 'zod';

const EVERYTHING = '0.0.0.0/0';
const List = z.array(z.string().max(255)).max(NETWORK_LIST_MAX).nullish();

/** The part of a network configuration that is about what the sandbox may reach; fields may be null or left out. */
export const EgressWish = z.object({
  allowOut: List,
  denyOut: List,
  dnsServers: z.array(z.ipv4()).max(DNS_SERVERS_MAX).nullish(),
  egressProxy: z.unknown().optional(),
  rules: z.record(z.string(), z.unknown()).nullish(),
});
export type EgressWish = z.infer<typeof EgressWish>;

/**
 * Everything is reachable but what is denied, and what is allowed is reachable all the same. Throws `invalid_request` for
 * what makes no sense, and for what Thaw does not do: it never lets a rule pass unheeded.
 */
export function toPolicy(wish: EgressWish, allowInternet: boolean | null | undefined): NetworkPolicy {
  if (wish.egressProxy !== undefined && wish.egressProxy !== null)
    throw refused('egressProxy', 'Thaw sends traffic through no proxy');
  if (Object.keys(wish.rules ?? {}).length > 0)
    throw refused('rules', 'Thaw does not look into requests of sandboxes, and changes none');
  const { dnsServers } = wish;
  const policy = {
    internet: allowInternet !== false,
    allow_out: (wish.allowOut ?? []).map(allowed),
    deny_out: (wish.denyOut ?? []).map(denied),
    ...(dnsServers && dnsServers.length > 0 && { dns_servers: dnsServers.map(server) }),
  };
  if (!domainsHold(policy))
    throw refused('allowOut', `domains have a meaning only with ${EVERYTHING} (all traffic) in denyOut`);
  const isClosed = !policy.internet || policy.deny_out.includes(EVERYTHING);
  if (policy.dns_servers && isClosed && !policy.allow_out.some(isDomain))
    throw refused(
      'dnsServers',
      'without domains in allowOut they cannot be reached, unless allowOut names them',
    );
  return policy;
}

function allowed(entry: string): string {
  const text = entry.trim().toLowerCase();
  if (isDomain(text)) return text;
  const range = rangeOf(text);
  if (range === undefined) throw refused('allowOut', `'${entry}' is no IPv4 address, range or domain`);
  if (isSpecial(range))
    throw refused('allowOut', `'${entry}' lies in a private or special range, which sandboxes never reach`);
  return range;
}

function denied(entry: string): string {
  const range = rangeOf(entry.trim());
  if (range === undefined)
    throw refused('denyOut', `'${entry}' is no IPv4 address or range; only allowOut takes domains`);
  return range;
}

function server(address: string): string {
  if (!isSpecial(address)) return address;
  throw refused('dnsServers', `${address} lies in a private or special range, which sandboxes never reach`);
}

/** Bits of the host are cleared: `192.0.2.7/24` is the range that this address is in. */
function rangeOf(text: string): string | undefined {
  const [address = '', length] = text.split('/');
  const span = addressSpan(address);
  if (span === undefined || length === undefined) return span && address;
  if (!/^\d{1,2}$/.test(length) || Number(length) > 32) return undefined;
  const size = 2 ** (32 - Number(length));
  const first = span.first - (span.first % size);
  const octets = [24, 16, 8, 0].map((bits) => Math.floor(first / 2 ** bits) % 256);
  return `${octets.join('.')}/${Number(length)}`;
}

function refused(field: string, why: string): ThawError {
  return new ThawError('invalid_request', `${field}: ${why}`);
}
