/**
 * The addresses that one guest's domains have opened. An address is in two of the firewall's sets:
 *
 *   resolved    new connections may begin; the kernel drops it at the end of its time
 *   lingering   connections that began go on; until its domain is taken from the policy, or room is needed
 *
 * Changes are planned first, as statements for nft, and count once nft took them.
 */

/** Of one guest. */
const ADDRESSES_MAX = 1024;

interface Opening {
  /** When new connections end, by Date.now(). */
  until: number;
  /** The entries of the policy that opened it; none are known of what an earlier process opened. */
  domains: ReadonlySet<string>;
}

export interface Change {
  statements: string[];
  /** To be called once nft has taken them. */
  commit(): void;
}

/** As the kernel has it. */
export interface Found {
  address: string;
  /** What is left of its time; 0: only lingering. */
  leftSec: number;
}

export class Openings {
  readonly #table: string;
  readonly #link: string;
  readonly #addresses = new Map<string, Opening>();

  constructor(table: string, link: string) {
    this.#table = table;
    this.#link = link;
  }

  /** Undefined when there are too many already. */
  open(domains: readonly string[], addresses: readonly string[], ttlSec: number): Change | undefined {
    const now = Date.now();
    const until = now + ttlSec * 1000;
    const unique = [...new Set(addresses)];
    const fresh = unique.filter((address) => !this.#addresses.has(address));
    const tooMany = this.#addresses.size + fresh.length - ADDRESSES_MAX;
    const over = [...this.#addresses]
      .filter(([address, opening]) => opening.until < now && !unique.includes(address))
      .sort(([, a], [, b]) => a.until - b.until)
      .slice(0, Math.max(0, tooMany))
      .map(([address]) => address);
    if (tooMany > over.length) return undefined;
    // Open for long enough within a second: the same names are asked for again and again.
    const short = unique.filter((address) => (this.#addresses.get(address)?.until ?? 0) < until - 1000);
    return {
      statements: [
        ...this.#remove(over),
        // What is there keeps its time when it is added again.
        ...this.#elements('add', 'resolved', short),
        ...this.#elements('delete', 'resolved', short),
        ...this.#elements('add', 'resolved', short, ` timeout ${ttlSec}s`),
        ...this.#elements('add', 'lingering', fresh),
      ],
      commit: () => {
        for (const address of over) this.#addresses.delete(address);
        for (const address of unique) {
          const before = this.#addresses.get(address);
          this.#addresses.set(address, {
            until: short.includes(address) ? until : (before?.until ?? until),
            domains: new Set([...(before?.domains ?? []), ...domains]),
          });
        }
      },
    };
  }

  /** Closes what none of `domains` has opened. */
  keep(domains: readonly string[]): Change {
    const closed = [...this.#addresses].flatMap(([address, opening]) =>
      domains.some((domain) => opening.domains.has(domain)) ? [] : [address],
    );
    return {
      statements: this.#remove(closed),
      commit: () => {
        for (const address of closed) this.#addresses.delete(address);
        for (const [address, { until, domains: before }] of this.#addresses) {
          const still = new Set(domains.filter((domain) => before.has(domain)));
          this.#addresses.set(address, { until, domains: still });
        }
      },
    };
  }

  /** Puts into new sets what an earlier process opened. */
  restore(found: readonly Found[]): string[] {
    const now = Date.now();
    for (const { address, leftSec } of found)
      this.#addresses.set(address, { until: now + leftSec * 1000, domains: new Set() });
    return [
      ...this.#elements(
        'add',
        'lingering',
        found.map(({ address }) => address),
      ),
      ...found
        .filter(({ leftSec }) => leftSec > 0)
        .flatMap(({ address, leftSec }) =>
          this.#elements('add', 'resolved', [address], ` timeout ${leftSec}s`),
        ),
    ];
  }

  /** Deleting what has ended by itself would fail; adding never does. */
  #remove(addresses: readonly string[]): string[] {
    return (['resolved', 'lingering'] as const).flatMap((set) => [
      ...this.#elements('add', set, addresses),
      ...this.#elements('delete', set, addresses),
    ]);
  }

  #elements(verb: 'add' | 'delete', set: string, addresses: readonly string[], suffix = ''): string[] {
    if (addresses.length === 0) return [];
    const elements = addresses.map((address) => `"${this.#link}" . ${address}${suffix}`);
    return [`${verb} element inet ${this.#table} ${set} { ${elements.join(', ')} }`];
  }
}
