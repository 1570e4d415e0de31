/**
 * The host's rules for an instance's slots: one nftables table with sets, so that a sandbox costs a few set
 * elements and a packet the same few rules however many sandboxes there are. Every change is one transaction.
 *
 *   guest ─► slot's namespace ─► link ─► ingress ─► forward ─► uplink (masqueraded)
 *                                        │ drops: IPv6, foreign sources, slots without egress, the host's own
 *                                        │ addresses, special ranges, what the slot's own lists deny
 *   host process ─► output ─► link ─► slot's namespace ─► guest        only root and the clients; control port: root
 */
import { z } from 'zod';
import { CommandError, run } from '../os/run.ts';
import type { SlotAddresses } from './addresses.ts';
import type { Client } from './dns/forwarder.ts';
import { disjoint, type Egress, isOpen } from './egress.ts';
import { applyRules, Nft } from './nft.ts';
import { type Found, Openings } from './openings.ts';
import { type FirewallOptions, hostRules, tableName } from './ruleset.ts';

export const OWN_TABLES = /^thaw_[0-9a-f]{6}$/;

/** What is set for one link besides `pairs` and `open`. */
interface Limits {
  egress: Egress;
  /** As the sets hold it: nftables deletes only what it is named exactly. */
  elements: string[];
  openings: Openings;
}

export class Firewall implements AsyncDisposable {
  readonly #options: FirewallOptions;
  readonly #table: string;
  readonly #nft = new Nft();
  /** By link. */
  readonly #limits = new Map<string, Limits>();
  /** Links by the address that their guests' questions come from, once these may leave. */
  readonly #heard = new Map<string, string>();
  /** One after the other, as each is planned on what the one before has left. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: FirewallOptions) {
    this.#options = options;
    this.#table = tableName(options.block.instance);
  }

  /** Puts the table in place, with `kept` slots in it, replacing what an earlier run left, in one transaction. */
  async install(kept: readonly { slot: SlotAddresses; egress: Egress }[]): Promise<void> {
    const open = new Set(await this.#openLinks());
    const found = await this.#openings();
    const lines = [`table inet ${this.#table}`, `delete table inet ${this.#table}`, hostRules(this.#options)];
    for (const { slot, egress } of kept) {
      lines.push(this.#pairs('add', slot));
      if (!open.has(slot.link)) continue;
      lines.push(this.#egress('add', slot));
      this.#heard.set(slot.innerAddress, slot.link);
      if (isOpen(egress)) continue;
      const openings = new Openings(this.#table, slot.link);
      const elements = elementsOf(slot.link, egress);
      if (isNamed(egress)) lines.push(...openings.restore(found.get(slot.link) ?? []));
      lines.push(...this.#each('add', elements));
      this.#limits.set(slot.link, { egress, elements, openings });
    }
    await applyRules(lines.join('\n'));
  }

  /** Lets the slot's own addresses pass; its egress stays closed. */
  async add(slot: SlotAddresses): Promise<void> {
    await this.#apply(() => ({ statements: [this.#pairs('add', slot)] }));
  }

  /** Lets the guest out as far as `egress` says, instead of what was said before; open connections follow it too. */
  async setEgress(slot: SlotAddresses, egress: Egress): Promise<void> {
    await this.#apply(() => {
      const before = this.#limits.get(slot.link);
      const openings = before?.openings ?? new Openings(this.#table, slot.link);
      const closing = openings.keep(isNamed(egress) ? egress.allowDomains : []);
      const elements = isOpen(egress) ? [] : elementsOf(slot.link, egress);
      return {
        statements: [
          ...this.#each('delete', before?.elements ?? []),
          ...closing.statements,
          ...this.#each('add', elements),
          ...(isNamed(egress) ? [] : this.#unasked(slot, before)),
          this.#egress('add', slot),
        ],
        commit: () => {
          closing.commit();
          if (isOpen(egress)) this.#limits.delete(slot.link);
          else this.#limits.set(slot.link, { egress, elements, openings });
        },
      };
    });
  }

  /** From now on the guest's questions are heard. */
  hear(slot: SlotAddresses): void {
    this.#heard.set(slot.innerAddress, slot.link);
  }

  /** Who asks from this address; undefined for everybody whose policy has no domains. */
  clientAt(address: string): Client | undefined {
    const link = this.#heard.get(address);
    const limits = link === undefined ? undefined : this.#limits.get(link);
    if (link === undefined || limits === undefined || !isNamed(limits.egress)) return undefined;
    return {
      domains: limits.egress.allowDomains,
      servers: limits.egress.dnsServers,
      open: (domains, addresses, ttlSec) => this.#open(link, limits.openings, domains, addresses, ttlSec),
    };
  }

  /** Forgets the slot, whatever was set for it. */
  async remove(slot: SlotAddresses): Promise<void> {
    this.#heard.delete(slot.innerAddress);
    await this.#apply(() => {
      const limits = this.#limits.get(slot.link);
      const closing = limits?.openings.keep([]);
      return {
        // Deleting a missing element fails the transaction; adding an existing one does not.
        statements: [
          this.#pairs('add', slot),
          this.#egress('add', slot),
          this.#pairs('delete', slot),
          this.#egress('delete', slot),
          ...this.#each('delete', limits?.elements ?? []),
          ...(closing?.statements ?? []),
          ...this.#unasked(slot, limits),
        ],
        commit: () => this.#limits.delete(slot.link),
      };
    });
  }

  async uninstall(): Promise<void> {
    await removeTable(this.#options.block.instance);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last;
    await this.#nft[Symbol.asyncDispose]();
  }

  /** The policy may have changed, or the slot gone, while the answer was on its way. */
  async #open(
    link: string,
    openings: Openings,
    domains: readonly string[],
    addresses: readonly string[],
    ttlSec: number,
  ): Promise<boolean> {
    let opened = false;
    await this.#apply(() => {
      const limits = this.#limits.get(link);
      const still =
        limits?.openings === openings && isNamed(limits.egress)
          ? domains.filter((domain) => limits.egress.allowDomains.includes(domain))
          : [];
      const change = still.length === 0 ? undefined : openings.open(still, addresses, ttlSec);
      opened = change !== undefined;
      return change ?? { statements: [] };
    });
    return opened;
  }

  async #openLinks(): Promise<string[]> {
    return (await this.#elements('open')).filter((element) => typeof element === 'string');
  }

  /** What an earlier process opened, by link. */
  async #openings(): Promise<Map<string, Found[]>> {
    const left = new Map<string, number>();
    const timed = z.object({
      elem: z.object({ val: z.object({ concat: z.tuple([z.string(), z.string()]) }), expires: z.number() }),
    });
    for (const element of await this.#elements('resolved')) {
      const { val, expires } = timed.parse(element).elem;
      left.set(val.concat.join(' '), expires);
    }
    const found = new Map<string, Found[]>();
    for (const element of await this.#elements('lingering')) {
      const [link, address] = z.object({ concat: z.tuple([z.string(), z.string()]) }).parse(element).concat;
      const leftSec = left.get(`${link} ${address}`) ?? 0;
      found.set(link, [...(found.get(link) ?? []), { address, leftSec }]);
    }
    return found;
  }

  async #elements(set: string): Promise<unknown[]> {
    try {
      const { stdout } = await run(['nft', '-j', 'list', 'set', 'inet', this.#table, set]);
      return setSchema.parse(JSON.parse(stdout)).nftables.flatMap((entry) => entry.set?.elem ?? []);
    } catch (error) {
      if (error instanceof CommandError && error.failure.kind === 'exit') return [];
      throw error;
    }
  }

  /** `plan` is made when it is its turn, and counts only if nft took it. */
  #apply(plan: () => { statements: string[]; commit?: () => void }): Promise<void> {
    const next = this.#last.then(async () => {
      const { statements, commit } = plan();
      if (statements.length > 0) await this.#nft.apply(statements);
      commit?.();
    });
    this.#last = next.catch(() => {});
    return next;
  }

  #each(verb: 'add' | 'delete', elements: readonly string[]): string[] {
    return elements.map((element) => `${verb} element inet ${this.#table} ${element}`);
  }

  /** Forgets how much was asked. */
  #unasked({ link }: SlotAddresses, limits: Limits | undefined): string[] {
    const element = `element inet ${this.#table} asking { "${link}" }`;
    return limits !== undefined && isNamed(limits.egress) ? [`add ${element}`, `delete ${element}`] : [];
  }

  #pairs(verb: 'add' | 'delete', slot: SlotAddresses): string {
    const pairs = [slot.innerAddress, slot.hostAddress].map((address) => `"${slot.link}" . ${address}`);
    return `${verb} element inet ${this.#table} pairs { ${pairs.join(', ')} }`;
  }

  #egress(verb: 'add' | 'delete', slot: SlotAddresses): string {
    return `${verb} element inet ${this.#table} open { "${slot.link}" }`;
  }
}

function isNamed(egress: Egress): boolean {
  return !isOpen(egress) && egress.allowDomains.length > 0;
}

function elementsOf(link: string, egress: Egress): string[] {
  const inSet = (set: string, ranges: readonly string[]) => {
    const elements = disjoint(ranges).map((range) => `"${link}" . ${range}`);
    return elements.length === 0 ? [] : [`${set} { ${elements.join(', ')} }`];
  };
  return [
    `limited { "${link}" }`,
    ...(egress.internet ? [] : [`offline { "${link}" }`]),
    ...(isNamed(egress) ? [`named { "${link}" }`] : []),
    ...inSet('allow', egress.allowOut),
    ...inSet('deny', egress.denyOut),
  ];
}

/** Deletes the instance's table if there is one; no other table is ever touched. */
export async function removeTable(instance: string): Promise<void> {
  await applyRules(`table inet ${tableName(instance)}\ndelete table inet ${tableName(instance)}`);
}

const setSchema = z.object({
  nftables: z.array(z.object({ set: z.object({ elem: z.array(z.unknown()).optional() }).optional() })),
});
