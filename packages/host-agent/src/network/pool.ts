/**
 * The slots of one instance. A slot is in exactly one place:
 *
 *   free ─► being built ─► warm ─► taken ─► being removed ─► free (at the end of the line)
 *                 └─ failed ──────────────────────┴─ what can't be removed is set aside until the next start
 *
 * A released slot's namespace is removed, never reused: no connection, rule or process of a sandbox can remain.
 */
import { ThawError } from '@thaw/api';
import { Steps } from '../os/step.ts';
import {
  type Block,
  DEFAULT_RANGES,
  dnsAddress,
  instanceId,
  linkPrefix,
  netnsPrefix,
  parseRange,
  type Ranges,
  type Role,
  type SlotAddresses,
  slotAddresses,
  slotIndex,
  TAP,
} from './addresses.ts';
import { type Claim, claimBlock, leaveClaim, releaseClaim } from './claim.ts';
import { Forwarder } from './dns/forwarder.ts';
import type { Egress } from './egress.ts';
import { Firewall, OWN_TABLES, removeTable } from './firewall.ts';
import { droppingForwardChains, links, namespaces } from './inventory.ts';
import { CLAIMS_DIR, netnsPath } from './paths.ts';
import { buildSlot, openSlot, type Plug, removeSlot, tapPlug } from './slot.ts';
import { addRoutes, enableForwarding, findUplink, removeRoutes, restoreForwarding } from './uplink.ts';

export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface NetworkOptions {
  /** The instance's data folder; it must exist. */
  data: string;
  /** Slots kept ready; 0 builds each when it is taken. */
  size: number;
  uidBase: number;
  /** `DEVICE` or `DEVICE/GATEWAY`; the default route's device unless given. */
  uplink?: string | undefined;
  /** Who is asked for the domains of sandboxes that do not say whom; 8.8.8.8 by the guests' way out without any. */
  dnsServers?: readonly string[];
  /** Seconds for which an answer opens addresses, at least and at most. */
  dnsTtlSec?: { min: number; max: number };
  /** Users besides root that may connect to guests: the control plane's. */
  clientUids: readonly number[];
  /** Slots of sandboxes that still run from before; the others of this instance are swept. */
  keep?: readonly { index: number; egress: Egress }[];
  log: Log;
  steps?: Steps;
  ranges?: Ranges;
  claimsDir?: string;
  plug?: Plug;
}

/** Some programs keep what they resolved for half a minute whatever its time to live (RFC 1035) is. */
const DNS_TTL_SEC = { min: 30, max: 3600 };

/** A network of one sandbox's own, from `take` until `release`. */
export interface Slot {
  readonly index: number;
  readonly netnsPath: string;
  /** Where the host reaches the guest. */
  readonly hostAddress: string;
  readonly tap: typeof TAP;
  readonly uids: Record<Role, number>;
  /** What the guest may reach once its egress is open. */
  setEgress(egress: Egress): Promise<void>;
  /** Lets the guest out, for good: until then it only answers the host. */
  openEgress(): Promise<void>;
  /** Gives the slot back, once: a second call joins the first. */
  release(): Promise<void>;
}

/** Where slots come from: the network of this host, or a test's stand-in. */
export interface Slots {
  readonly instance: string;
  /** Slots by where they are. */
  counts(): { warm: number; taken: number; free: number; aside: number };
  /** Throws `exhausted` when every slot is in use, `unavailable` when the pool closes. */
  take(): Promise<Slot>;
  /** The slot of a sandbox that still runs from before this process; it must be one of those kept. */
  adopt(index: number): Slot;
}

export class SlotPool implements Slots, AsyncDisposable {
  readonly #options: NetworkOptions;
  readonly #steps: Steps;
  readonly #block: Block;
  readonly #firewall: Firewall;
  readonly #forwarder: Forwarder;
  readonly #free: number[];
  readonly #warm: SlotAddresses[] = [];
  readonly #taken = new Map<number, Slot>();
  readonly #kept: Set<number>;
  /** Slots that could not be removed. */
  #aside = 0;
  #filling: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(options: NetworkOptions, block: Block, firewall: Firewall, forwarder: Forwarder) {
    this.#options = options;
    this.#steps = options.steps ?? new Steps();
    this.#block = block;
    this.#firewall = firewall;
    this.#forwarder = forwarder;
    this.#kept = new Set(options.keep?.map(({ index }) => index));
    this.#free = Array.from({ length: block.slots }, (_, i) => i + 1).filter(
      (index) => !this.#kept.has(index),
    );
  }

  /**
   * Claims addresses and users, sweeps what a dead host agent of this instance left, puts the rules in place and
   * starts to fill the pool.
   */
  static async open(options: NetworkOptions): Promise<SlotPool> {
    const claimsDir = options.claimsDir ?? CLAIMS_DIR;
    const { data, log, uidBase, clientUids, ranges = DEFAULT_RANGES, keep = [] } = options;
    const instance = await instanceId(data);
    await using undo = new AsyncDisposableStack();
    const uplink = await findUplink(options.uplink);
    const block = await claimBlock({ claimsDir, data, instance, ranges, uidBase, sweep: sweepOrphan });
    undo.defer(() => leaveClaim(claimsDir, instance));
    await sweepSlots(instance, new Set(keep.map(({ index }) => index)), log);
    const guardUplink = uplink !== undefined && (await enableForwarding(claimsDir, instance, uplink.device));
    await addRoutes(block, uplink);
    const address = dnsAddress(block);
    let firewall: Firewall | undefined;
    const forwarder = undo.use(
      await Forwarder.open({
        address,
        servers: options.dnsServers ?? [],
        ttlSec: options.dnsTtlSec ?? DNS_TTL_SEC,
        clientAt: (source) => firewall?.clientAt(source),
        warn: (error) => log.warn({ err: error }, 'a question of a guest could not be answered'),
      }),
    );
    const dns = { address, port: forwarder.port };
    firewall = undo.use(new Firewall({ block, uplink: uplink?.device, clientUids, guardUplink, dns }));
    await firewall.install(keep.map(({ index, egress }) => ({ slot: slotAddresses(block, index), egress })));
    if (uplink === undefined) log.warn({}, 'no default route: sandboxes have no internet');
    const dropping = await droppingForwardChains(OWN_TABLES);
    if (dropping.length > 0) {
      log.warn(
        { chains: dropping },
        'other firewall chains drop forwarded packets: sandboxes may have no internet',
      );
    }
    const pool = new SlotPool(options, block, firewall, forwarder);
    undo.move();
    pool.#fill();
    return pool;
  }

  get instance(): string {
    return this.#block.instance;
  }

  counts(): { warm: number; taken: number; free: number; aside: number } {
    return {
      warm: this.#warm.length,
      taken: this.#taken.size + this.#kept.size,
      free: this.#free.length,
      aside: this.#aside,
    };
  }

  /** Resolves when the pool is as full as it gets for now. */
  async settled(): Promise<void> {
    await this.#filling;
  }

  async take(): Promise<Slot> {
    if (this.#closing !== undefined) throw new ThawError('unavailable', 'the host is shutting down');
    const slot = this.#warm.shift() ?? (await this.#build());
    this.#fill();
    const handed = this.#hand(slot);
    if (this.#closing === undefined) return handed;
    await handed.release();
    throw new ThawError('unavailable', 'the host is shutting down');
  }

  adopt(index: number): Slot {
    if (!this.#kept.delete(index)) throw new ThawError('internal', `slot ${index} was not kept`);
    return this.#hand(slotAddresses(this.#block, index));
  }

  /** Removes what nobody uses. With no slot in use, everything of this instance goes. */
  async close(): Promise<void> {
    this.#closing ??= this.#drain();
    await this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #hand(addresses: SlotAddresses): Slot {
    let released: Promise<void> | undefined;
    const slot: Slot = {
      index: addresses.index,
      netnsPath: netnsPath(addresses.netns),
      hostAddress: addresses.hostAddress,
      tap: TAP,
      uids: addresses.uids,
      setEgress: async (egress) => {
        if (released !== undefined) throw new ThawError('internal', 'the network slot was released');
        await this.#steps.run('network:set-egress', () => this.#firewall.setEgress(addresses, egress));
      },
      openEgress: async () => {
        if (released !== undefined) throw new ThawError('internal', 'the network slot was released');
        await this.#steps.run('network:open-egress', () => openSlot(addresses));
        this.#firewall.hear(addresses);
      },
      release: () => {
        released ??= this.#release(addresses);
        return released;
      },
    };
    this.#taken.set(slot.index, slot);
    return slot;
  }

  async #build(): Promise<SlotAddresses> {
    const index = this.#free.shift();
    if (index === undefined) throw new ThawError('exhausted', 'every network slot of this host is in use');
    const slot = slotAddresses(this.#block, index);
    try {
      await this.#steps.run('network:build-slot', () => buildSlot(slot, this.#options.plug ?? tapPlug));
      await this.#steps.run('network:admit-slot', () => this.#firewall.add(slot));
      return slot;
    } catch (error) {
      await this.#remove(slot);
      throw error;
    }
  }

  async #release(slot: SlotAddresses): Promise<void> {
    await this.#remove(slot);
    this.#taken.delete(slot.index);
    this.#fill();
  }

  /** A slot that can't be removed is never handed out again; the sweep of the next start tries once more. */
  async #remove(slot: SlotAddresses): Promise<void> {
    try {
      await this.#firewall.remove(slot);
      await removeSlot(slot);
      this.#free.push(slot.index);
    } catch (error) {
      this.#aside += 1;
      this.#options.log.warn({ err: error, slot: slot.index }, 'a network slot could not be removed');
    }
  }

  /** Fills the pool in the background, one slot at a time; after a failure the next take or release tries again. */
  #fill(): void {
    if (this.#filling !== undefined || this.#closing !== undefined) return;
    const fill = async () => {
      while (this.#closing === undefined && this.#warm.length < this.#options.size && this.#free.length > 0) {
        this.#warm.push(await this.#build());
      }
    };
    this.#filling = fill()
      .catch((error: unknown) => this.#options.log.warn({ err: error }, 'a network slot could not be built'))
      .finally(() => {
        this.#filling = undefined;
      });
  }

  async #drain(): Promise<void> {
    const claimsDir = this.#options.claimsDir ?? CLAIMS_DIR;
    await this.#filling;
    for (const slot of this.#warm.splice(0)) await this.#remove(slot);
    await this.#forwarder[Symbol.asyncDispose]();
    await this.#firewall[Symbol.asyncDispose]();
    if (this.#taken.size > 0 || this.#kept.size > 0) return leaveClaim(claimsDir, this.instance);
    await this.#firewall.uninstall();
    await removeRoutes(this.#block);
    await restoreForwarding(claimsDir, this.instance);
    await releaseClaim(claimsDir, this.instance);
  }
}

/** Removes the instance's namespaces and links that no sandbox uses. */
async function sweepSlots(instance: string, keep: ReadonlySet<number>, log?: Log): Promise<void> {
  const found = new Set<number>();
  for (const name of await namespaces()) found.add(slotIndex(name, netnsPrefix(instance)) ?? 0);
  for (const name of await links()) found.add(slotIndex(name, linkPrefix(instance)) ?? 0);
  found.delete(0);
  for (const index of found) {
    if (keep.has(index)) continue;
    await removeSlot({ netns: `${netnsPrefix(instance)}${index}`, link: `${linkPrefix(instance)}${index}` });
    log?.info({ slot: index }, 'removed a network slot that an earlier run left');
  }
}

async function sweepOrphan(orphan: Claim): Promise<void> {
  await sweepSlots(orphan.instance, new Set());
  await removeTable(orphan.instance);
  await removeRoutes({
    index: orphan.block,
    guests: parseRange(orphan.guests),
    links: parseRange(orphan.links),
  });
}
