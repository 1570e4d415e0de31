/**
 * The host's rules for an instance's slots: one nftables table with sets, so that a sandbox costs a few set
 * elements and a packet the same few rules however many sandboxes there are. Every change is one transaction.
 *
 *   guest ─► slot's namespace ─► link ─► ingress ─► forward ─► uplink (masqueraded)
 *                                        │ drops: IPv6, foreign sources, slots without egress, the host's own
 *                                        │ addresses, special ranges, what the slot's own lists deny
 *   host process ─► output ─► link ─► slot's namespace ─► guest        only root and the clients; control port: root
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { SPECIAL_RANGES } from '@thaw/api';
import { z } from 'zod';
import { CommandError, run } from '../os/run.ts';
import {
  type Block,
  formatRange,
  GATEWAY_ADDRESS,
  GUEST_ADDRESS,
  linkPrefix,
  type SlotAddresses,
  TAP,
} from './addresses.ts';
import { disjoint, type Egress, isOpen } from './egress.ts';

/** The guest agent's control port: root's alone. */
const CONTROL_PORT = 49982;

export const OWN_TABLES = /^thaw_[0-9a-f]{6}$/;

export interface FirewallOptions {
  block: Block;
  /** The interface guests may leave by; without one nothing leaves. */
  uplink: string | undefined;
  /** Users besides root that may connect to guests. */
  clientUids: readonly number[];
  /** Thaw itself switched on the uplink's forwarding: nobody else's traffic may profit from it. */
  guardUplink: boolean;
}

export class Firewall {
  readonly #options: FirewallOptions;
  readonly #table: string;
  /** What the sets hold for each link besides `pairs` and `open`: nftables deletes only what it is named exactly. */
  readonly #limits = new Map<string, string[]>();
  /** nft answers EBUSY-like errors to overlapping transactions of one table; ours go one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: FirewallOptions) {
    this.#options = options;
    this.#table = tableName(options.block.instance);
  }

  /** Puts the table in place, with `kept` slots in it, replacing what an earlier run left, in one transaction. */
  async install(kept: readonly { slot: SlotAddresses; egress: Egress }[]): Promise<void> {
    const open = new Set(await this.#openLinks());
    const lines = [
      `table inet ${this.#table}`,
      `delete table inet ${this.#table}`,
      this.#ruleset(),
      ...kept.map(({ slot }) => this.#pairs('add', slot)),
      ...kept.flatMap(({ slot, egress }) =>
        open.has(slot.link) ? [...this.#limit(slot, egress), this.#egress('add', slot)] : [],
      ),
    ];
    await this.#apply(() => lines);
  }

  /** Lets the slot's own addresses pass; its egress stays closed. */
  async add(slot: SlotAddresses): Promise<void> {
    await this.#apply(() => [this.#pairs('add', slot)]);
  }

  /** Lets the guest out as far as `egress` says, instead of what was said before; open connections follow it too. */
  async setEgress(slot: SlotAddresses, egress: Egress): Promise<void> {
    await this.#apply(() => [
      ...this.#unlimit(slot),
      ...this.#limit(slot, egress),
      this.#egress('add', slot),
    ]);
  }

  /** Forgets the slot, whatever was set for it. */
  async remove(slot: SlotAddresses): Promise<void> {
    // Deleting a missing element fails the transaction; adding an existing one does not.
    await this.#apply(() => [
      this.#pairs('add', slot),
      this.#egress('add', slot),
      this.#pairs('delete', slot),
      this.#egress('delete', slot),
      ...this.#unlimit(slot),
    ]);
  }

  async uninstall(): Promise<void> {
    await removeTable(this.#options.block.instance);
  }

  async #openLinks(): Promise<string[]> {
    try {
      const { stdout } = await run(['nft', '-j', 'list', 'set', 'inet', this.#table, 'open']);
      return setSchema.parse(JSON.parse(stdout)).nftables.flatMap((entry) => entry.set?.elem ?? []);
    } catch (error) {
      if (error instanceof CommandError && error.failure.kind === 'exit') return [];
      throw error;
    }
  }

  /** `lines` are made when it is their turn; what they change in `#limits` holds only if nft took them. */
  #apply(lines: () => string[]): Promise<void> {
    const next = this.#last.then(async () => {
      const before = new Map(this.#limits);
      try {
        await applyRules(lines().join('\n'));
      } catch (error) {
        this.#limits.clear();
        for (const [link, elements] of before) this.#limits.set(link, elements);
        throw error;
      }
    });
    this.#last = next.catch(() => {});
    return next;
  }

  #limit(slot: SlotAddresses, egress: Egress): string[] {
    if (isOpen(egress)) return [];
    const inSet = (set: string, ranges: readonly string[]) => {
      const elements = disjoint(ranges).map((range) => `"${slot.link}" . ${range}`);
      return elements.length === 0 ? [] : [`${set} { ${elements.join(', ')} }`];
    };
    const elements = [
      `limited { "${slot.link}" }`,
      ...(egress.internet ? [] : [`offline { "${slot.link}" }`]),
      ...inSet('allow', egress.allowOut),
      ...inSet('deny', egress.denyOut),
    ];
    this.#limits.set(slot.link, elements);
    return elements.map((element) => `add element inet ${this.#table} ${element}`);
  }

  #unlimit(slot: SlotAddresses): string[] {
    const elements = this.#limits.get(slot.link) ?? [];
    this.#limits.delete(slot.link);
    return elements.map((element) => `delete element inet ${this.#table} ${element}`);
  }

  #pairs(verb: 'add' | 'delete', slot: SlotAddresses): string {
    const pairs = [slot.innerAddress, slot.hostAddress].map((address) => `"${slot.link}" . ${address}`);
    return `${verb} element inet ${this.#table} pairs { ${pairs.join(', ')} }`;
  }

  #egress(verb: 'add' | 'delete', slot: SlotAddresses): string {
    return `${verb} element inet ${this.#table} open { "${slot.link}" }`;
  }

  #ruleset(): string {
    const { block, uplink, clientUids, guardUplink } = this.#options;
    const slots = `"${linkPrefix(block.instance)}*"`;
    const clients = [0, ...clientUids].join(', ');
    const leave = uplink === undefined ? '' : `iifname ${slots} oifname "${uplink}" accept`;
    const guard = uplink === undefined || !guardUplink ? '' : `iifname "${uplink}" ct state new drop`;
    const masquerade =
      uplink === undefined ? '' : `ip saddr ${formatRange(block.links)} oifname "${uplink}" masquerade`;
    return `
table inet ${this.#table} {
  set special { type ipv4_addr; flags interval; elements = { ${SPECIAL_RANGES.join(', ')} } }
  set clients { typeof meta skuid; elements = { ${clients} } }
  set pairs { type ifname . ipv4_addr; }
  set open { type ifname; }
  set limited { type ifname; }
  set offline { type ifname; }
  set allow { type ifname . ipv4_addr; flags interval; }
  set deny { type ifname . ipv4_addr; flags interval; }

  chain ingress {
    type filter hook prerouting priority mangle; policy accept;
    iifname ${slots} jump from_slot
  }
  chain limits {
    iifname . ip daddr @allow return
    iifname . ip daddr @deny drop
    iifname @offline drop
  }
  chain from_slot {
    meta nfproto != ipv4 drop
    iifname . ip saddr != @pairs drop
    ct state invalid drop
    ct direction reply ct state established,related accept
    iifname != @open drop
    iifname @limited jump limits
    ct state established,related accept
    fib daddr type != unicast drop
    ip daddr @special drop
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname ${slots} ct direction reply ct state established,related accept
    iifname ${slots} drop
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    oifname ${slots} meta nfproto ipv4 ct direction reply ct state established,related accept
    oifname ${slots} drop
    ${leave}
    iifname ${slots} drop
    ${guard}
  }
  chain output {
    type filter hook output priority filter; policy accept;
    oifname ${slots} jump to_slot
  }
  chain to_slot {
    meta nfproto != ipv4 drop
    ct state established,related accept
    meta skuid 0 accept
    tcp dport ${CONTROL_PORT} drop
    meta skuid @clients accept
    drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ${masquerade}
  }
}`;
  }
}

/**
 * The rules inside a slot's namespace: the guest speaks with its one address, the host appears to it as its gateway.
 * A guest's packet for a connection of before its snapshot gets a reset, so that it does not wait for an answer.
 */
export function slotRules(slot: SlotAddresses): string {
  return `
table inet thaw {
  chain ingress {
    type filter hook prerouting priority mangle; policy accept;
    meta nfproto != ipv4 drop
    iifname "${TAP}" ip saddr != ${GUEST_ADDRESS} drop
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "${TAP}" ip daddr ${GATEWAY_ADDRESS} meta l4proto tcp reject with tcp reset
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname "${TAP}" oifname "eth0" accept
    iifname "eth0" oifname "${TAP}" ct status dnat accept
    iifname "eth0" oifname "${TAP}" ct state established,related accept
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "eth0" ip daddr ${slot.hostAddress} dnat ip to ${GUEST_ADDRESS}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "eth0" ip saddr ${GUEST_ADDRESS} snat ip to ${slot.innerAddress}
    oifname "${TAP}" snat ip to ${GATEWAY_ADDRESS}
  }
}`;
}

/** Applies `rules` as one transaction, in the named namespace or in this process's own. */
export async function applyRules(rules: string, netns?: string): Promise<void> {
  await using cleanUp = new AsyncDisposableStack();
  // nft opens its input by path, which a socket on standard input refuses: it gets a file.
  const folder = await mkdtemp(path.join(os.tmpdir(), 'thaw-nft-'));
  cleanUp.defer(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'rules.nft');
  await writeFile(file, `${rules}\n`, { mode: 0o600 });
  await run(netns === undefined ? ['nft', '-f', file] : ['nsenter', `--net=${netns}`, 'nft', '-f', file]);
}

/** Deletes the instance's table if there is one; no other table is ever touched. */
export async function removeTable(instance: string): Promise<void> {
  await applyRules(`table inet ${tableName(instance)}\ndelete table inet ${tableName(instance)}`);
}

function tableName(instance: string): string {
  return `thaw_${instance}`;
}

const setSchema = z.object({
  nftables: z.array(z.object({ set: z.object({ elem: z.array(z.string()).optional() }).optional() })),
});
