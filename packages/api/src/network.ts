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

const isSpecial = ({ first, last }: AddressSpan): boolean =>
  SPECIAL_RANGES.map((range) => addressSpan(range)!).some(
    (special) => special.first <= first && last <= special.last,
  );

const Range = z
  .string()
  .max(18)
  .refine(
    (text) => addressSpan(text) !== undefined,
    'must be an IPv4 address or a range like 192.0.2.0/24, without host bits; IPv6 never leaves a sandbox',
  );
const Reachable = Range.refine((text) => {
  const span = addressSpan(text);
  return span === undefined || !isSpecial(span);
}, 'lies in a private or special range, which sandboxes never reach');

/** Of requests. What is left out has the default, also in a change: a policy is always given whole. */
export const NetworkWish = z.strictObject({
  internet: z
    .boolean()
    .optional()
    .describe('Whether what no list names is reachable. Without it: unless there is an `allow_out`.'),
  allow_out: z
    .array(Reachable)
    .max(NETWORK_LIST_MAX)
    .default([])
    .describe('Reachable whatever else is said here.'),
  deny_out: z
    .array(Range)
    .max(NETWORK_LIST_MAX)
    .default([])
    .describe('Not reachable, but for what `allow_out` names.'),
});
export type NetworkWish = z.output<typeof NetworkWish>;
export type NetworkWishInput = z.input<typeof NetworkWish>;

export const NetworkPolicy = z.object({
  internet: z.boolean(),
  allow_out: z.array(z.string()),
  deny_out: z.array(z.string()),
});
export type NetworkPolicy = z.infer<typeof NetworkPolicy>;

export const OPEN_NETWORK: NetworkPolicy = { internet: true, allow_out: [], deny_out: [] };

export function networkPolicy(wish: NetworkWish): NetworkPolicy {
  return { ...wish, internet: wish.internet ?? wish.allow_out.length === 0 };
}
