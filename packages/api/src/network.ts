/** What a sandbox may reach of the internet. The host's own addresses and special ranges stay closed whatever is allowed. */
import { z } from 'zod';

/**
 * Addresses that are not the internet, after the IANA registry of special-purpose addresses (RFC 6890): this
 * network, private, shared, loopback, link-local (cloud metadata), protocol assignments, benchmarks, multicast,
 * reserved. The documentation ranges are left out: nobody lives there.
 */
export const SPECIAL_RANGES = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '224.0.0.0/4',
  '240.0.0.0/4',
] as const;

/** Entries of one list. */
export const NETWORK_LIST_MAX = 256;

/** First and last address as unsigned numbers. */
export interface AddressSpan {
  first: number;
  last: number;
}

/** Reads `a.b.c.d` or `a.b.c.d/n`; undefined for anything else, host bits included. */
export function addressSpan(text: string): AddressSpan | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:\/(\d{1,2}))?$/.exec(text);
  if (match === null) return undefined;
  const octets = match.slice(1, 5).map(Number);
  const prefix = match[5] === undefined ? 32 : Number(match[5]);
  if (prefix > 32 || octets.some((octet) => octet > 255)) return undefined;
  const first = octets.reduce((sum, octet) => sum * 256 + octet, 0);
  const size = 2 ** (32 - prefix);
  return first % size === 0 ? { first, last: first + size - 1 } : undefined;
}

const SPECIAL = SPECIAL_RANGES.map((range) => addressSpan(range)!);

/** Whether all of an address or range, as `addressSpan` reads it, is no part of the internet. */
export function isSpecial(text: string): boolean {
  const span = addressSpan(text);
  return span !== undefined && SPECIAL.some(({ first, last }) => first <= span.first && span.last <= last);
}

/** A name and, with `*.` before it, all names below it but not itself; lower case, without a last dot. */
const DOMAIN = /^(\*\.)?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?$/;

export function isDomain(text: string): boolean {
  const name = text.replace(/^\*\./, '');
  return name.length <= 253 && DOMAIN.test(text) && name.split('.').every((label) => label.length <= 63);
}

/** Those of a list that are domains, and those that are not. */
export function splitDomains(list: readonly string[]): { domains: string[]; ranges: string[] } {
  return { domains: list.filter(isDomain), ranges: list.filter((entry) => !isDomain(entry)) };
}

/**
 * Domains open the addresses that they resolve to: that means something only where all else is closed, by
 * `internet: false` or a `deny_out` of everything. False for a policy that names domains and leaves the rest open.
 */
export function domainsHold(policy: Omit<NetworkPolicy, 'dns_servers'>): boolean {
  const everything = policy.deny_out.includes('0.0.0.0/0');
  return !policy.internet || everything || !policy.allow_out.some(isDomain);
}

const RANGE_WANTED =
  'must be an IPv4 address or a range like 192.0.2.0/24, without host bits; IPv6 never leaves a sandbox';
const Range = z
  .string()
  .max(18)
  .refine((text) => addressSpan(text) !== undefined, RANGE_WANTED);
const notSpecial = (text: string): boolean => !isSpecial(text);
const NOT_SPECIAL = 'lies in a private or special range, which sandboxes never reach';
const Reachable = z
  .string()
  .max(255)
  .toLowerCase()
  .refine(
    (text) => addressSpan(text) !== undefined || isDomain(text),
    `${RANGE_WANTED}; or a domain like example.com or *.example.com`,
  )
  .refine(notSpecial, NOT_SPECIAL);
export const DNS_SERVERS_MAX = 10;
const DnsServer = z.ipv4().refine(notSpecial, NOT_SPECIAL);

export const NetworkPolicy = z.object({
  internet: z.boolean(),
  allow_out: z.array(z.string()),
  deny_out: z.array(z.string()),
  dns_servers: z.array(z.string()).optional(),
});
export type NetworkPolicy = z.infer<typeof NetworkPolicy>;

export const OPEN_NETWORK: NetworkPolicy = { internet: true, allow_out: [], deny_out: [] };

/** The policy that a wish is. */
export function networkPolicy(
  wish: Omit<NetworkPolicy, 'internet'> & { internet?: boolean | undefined },
): NetworkPolicy {
  return { ...wish, internet: wish.internet ?? wish.allow_out.length === 0 };
}

/** Of requests. What is left out has the default, also in a change: a policy is always given whole. */
export const NetworkWish = z
  .strictObject({
    internet: z
      .boolean()
      .optional()
      .describe('Whether what no list names is reachable. Without it: unless there is an `allow_out`.'),
    allow_out: z
      .array(Reachable)
      .max(NETWORK_LIST_MAX)
      .default([])
      .describe(
        'Reachable whatever else is said here: IPv4 addresses and ranges; where `internet` is false also domains, and with `*.` before one all below it.',
      ),
    deny_out: z
      .array(Range)
      .max(NETWORK_LIST_MAX)
      .default([])
      .describe('Not reachable, but for what `allow_out` names. IPv4 addresses and ranges.'),
    dns_servers: z
      .array(DnsServer)
      .min(1)
      .max(DNS_SERVERS_MAX)
      .optional()
      .describe(
        'Who is asked for the domains of `allow_out`, in this order. Without it: whom the host asks.',
      ),
  })
  .refine((wish) => domainsHold(networkPolicy(wish)), {
    path: ['allow_out'],
    message: 'domains have a meaning only with "internet": false',
  })
  .refine((wish) => wish.dns_servers === undefined || wish.allow_out.some(isDomain), {
    path: ['dns_servers'],
    message: 'have a meaning only with domains in allow_out',
  });
export type NetworkWish = z.output<typeof NetworkWish>;
export type NetworkWishInput = z.input<typeof NetworkWish>;
