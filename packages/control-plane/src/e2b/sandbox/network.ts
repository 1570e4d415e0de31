/** The network of the E2B API, and what it means to us: who a guest may call, and who may call it. */
import { addressSpan, type NetworkPolicy, NetworkWish, ThawError } from '@thaw/api';
import { z } from 'zod';
import type { Ingress } from '../../db/schema.ts';
import { invalid } from '../../http/errors.ts';

const EVERYTHING = '0.0.0.0/0';
const AGENT_PORT = 49_983;
const List = z.array(z.string().max(255)).max(256);

/** What a guest may call. */
export const EgressWish = z.object({
  allowOut: List.nullish(),
  denyOut: List.nullish(),
  dnsServers: z.array(z.string()).max(10).nullish(),
  egressProxy: z.unknown().optional(),
  rules: z.record(z.string(), z.unknown()).nullish(),
});
export type EgressWish = z.output<typeof EgressWish>;

/** And who may call it. */
export const E2bNetworkWish = EgressWish.extend({
  allowPublicTraffic: z.boolean().nullish(),
  maskRequestHost: z
    .string()
    .min(1)
    .max(255)
    .regex(/^[\x21-\x7e]+$/, 'must be a host name of printable ASCII characters')
    .nullish(),
  httpsPorts: z
    .array(
      z
        .int()
        .min(1)
        .max(65_535)
        .refine((port) => port !== AGENT_PORT, `${AGENT_PORT} is the guest agent's`),
    )
    .max(64)
    .nullish(),
});
export type E2bNetworkWish = z.output<typeof E2bNetworkWish>;

/**
 * What is named to be allowed is reachable whatever is denied; `allowInternet` false denies everything else. Throws
 * `invalid_request`, also for what Thaw has not.
 */
export function toPolicy(
  { allowOut, denyOut, dnsServers, egressProxy, rules }: EgressWish,
  allowInternet: boolean | null | undefined,
): NetworkPolicy {
  if (egressProxy !== undefined && egressProxy !== null)
    throw new ThawError('invalid_request', 'network.egressProxy is not supported');
  if (rules && Object.keys(rules).length > 0)
    throw new ThawError('invalid_request', 'network.rules are not supported');
  const wish = {
    internet: allowInternet !== false,
    allow_out: (allowOut ?? []).map(withoutHostBits),
    deny_out: (denyOut ?? []).map(withoutHostBits),
  };
  checkDomains(wish);
  if (dnsServers && dnsServers.length > 0)
    throw new ThawError('invalid_request', 'network.dnsServers is not supported yet');
  const policy = NetworkWish.safeParse(wish);
  if (!policy.success) throw invalid(policy.error.issues.map(named), 'network');
  return { ...policy.data, internet: wish.internet };
}

export function toIngress({ allowPublicTraffic, maskRequestHost, httpsPorts }: E2bNetworkWish): Ingress {
  return {
    ...(typeof allowPublicTraffic === 'boolean' && { allow_public_traffic: allowPublicTraffic }),
    ...(typeof maskRequestHost === 'string' && { mask_request_host: maskRequestHost }),
    ...(httpsPorts && { https_ports: httpsPorts }),
  };
}

/** Names open what they resolve to: that means nothing where the rest is open too. */
function checkDomains({ internet, allow_out, deny_out }: NetworkPolicy): void {
  const isName = (entry: string) => /[a-z]/i.test(entry) && !entry.includes(':');
  const denied = deny_out.find(isName);
  if (denied !== undefined)
    throw new ThawError(
      'invalid_request',
      `network.denyOut: ${denied} is a domain, only addresses can be denied`,
    );
  if (internet && allow_out.some(isName) && !deny_out.includes(EVERYTHING))
    throw new ThawError('invalid_request', `network.allowOut: domains need ${EVERYTHING} in denyOut`);
}

/** `192.0.2.7/24` means `192.0.2.0/24`; whatever is no range stays as it is. */
function withoutHostBits(entry: string): string {
  const [address = '', prefix] = entry.trim().split('/');
  const span = addressSpan(address);
  const bits = Number(prefix);
  if (span === undefined || prefix === undefined || !/^\d{1,2}$/.test(prefix) || bits > 32)
    return entry.trim();
  const size = 2 ** (32 - bits);
  const first = span.first - (span.first % size);
  const octets = [24, 16, 8, 0].map((shift) => Math.floor(first / 2 ** shift) % 256);
  return `${octets.join('.')}/${bits}`;
}

const NAMES: Record<string, string> = {
  allow_out: 'allowOut',
  deny_out: 'denyOut',
  dns_servers: 'dnsServers',
};

/** With the field's name as the client wrote it. */
function named({ path: [field, ...rest], message }: { path: PropertyKey[]; message: string }) {
  return { path: ['network', NAMES[String(field)] ?? String(field), ...rest], message };
}
