/** What one sandbox's guest may reach of the internet. */
import { type AddressSpan, addressSpan, DNS_SERVERS_MAX, isDomain, isSpecial, ThawError } from '@thaw/api';
import { z } from 'zod';
import { formatAddress } from './addresses.ts';

const Ranges = z.array(z.string().refine((text) => addressSpan(text) !== undefined, 'is no IPv4 range'));
const DnsServer = z.ipv4().refine((text) => !isSpecial(text), 'lies in a special range');

export const egressSchema = z.object({
  /** Whether what no list names is reachable. */
  internet: z.boolean(),
  /** Reachable whatever else is said here; IPv4 addresses and ranges. */
  allowOut: Ranges,
  /** Not reachable, but for what `allowOut` names. */
  denyOut: Ranges,
  /** Names, and `*.name` for all below one: what they resolve to is reachable for as long as the answer holds. */
  allowDomains: z.array(z.string().refine(isDomain, 'is no domain')).default([]),
  /** Who is asked for them; none: whom the host asks. */
  dnsServers: z.array(DnsServer).max(DNS_SERVERS_MAX).default([]),
});

export type Egress = z.infer<typeof egressSchema>;

export const OPEN_EGRESS: Egress = {
  internet: true,
  allowOut: [],
  denyOut: [],
  allowDomains: [],
  dnsServers: [],
};

/** Checks what a caller sent. Throws `invalid_request`. */
export function checkedEgress(network: Egress): Egress {
  const parsed = egressSchema.safeParse(network);
  if (parsed.success) return parsed.data;
  throw new ThawError('invalid_request', `network: ${parsed.error.issues[0]?.message}`);
}

export function isOpen({ internet, denyOut }: Egress): boolean {
  return internet && denyOut.length === 0;
}

/** The same addresses as intervals that do not overlap, as nftables wants them: `a.b.c.d` or `a.b.c.d-e.f.g.h`. */
export function disjoint(ranges: readonly string[]): string[] {
  const spans = ranges.flatMap((range) => addressSpan(range) ?? []).sort((a, b) => a.first - b.first);
  const merged: AddressSpan[] = [];
  for (const span of spans) {
    const before = merged.at(-1);
    if (before !== undefined && span.first <= before.last + 1) before.last = Math.max(before.last, span.last);
    else merged.push({ ...span });
  }
  return merged.map(({ first, last }) =>
    first === last ? formatAddress(first) : `${formatAddress(first)}-${formatAddress(last)}`,
  );
}
