/**
 * The arithmetic of slots: names, addresses and users of slot i of an instance, all from the block the instance
 * claimed. Sixteen instances fit on a machine; each has a sixteenth of both ranges and of the users.
 */
import { createHash } from 'node:crypto';
import { realpath } from 'node:fs/promises';
import { ThawError } from '@thaw/api';

/** The same in every VM, so that a snapshot restores in any slot. */
export const GUEST_ADDRESS = '169.254.0.21';
export const GATEWAY_ADDRESS = '169.254.0.22';
export const GUEST_MAC = '02:fc:00:00:00:05';
export const GATEWAY_MAC = '02:fc:00:00:00:06';
export const TAP = 'tap0';
export const ROLES = ['vmm', 'pager', 'blockstore'] as const;
export type Role = (typeof ROLES)[number];

export const BLOCKS = 16;

/** Two ranges of one size: addresses of sandboxes as the host reaches them, and links between host and slots. */
export interface Ranges {
  guests: Range;
  links: Range;
}

export interface Range {
  /** First address as an unsigned number. */
  base: number;
  prefix: number;
}

export const DEFAULT_RANGES: Ranges = {
  guests: parseRange('10.11.0.0/16'),
  links: parseRange('10.12.0.0/16'),
};

/** What one instance owns. */
export interface Block {
  instance: string;
  index: number;
  guests: Range;
  links: Range;
  /** Slots are 1…slots; 0 stays unused, its addresses are those of the network itself. */
  slots: number;
  uidBase: number;
}

export interface SlotAddresses {
  index: number;
  netns: string;
  /** The link's end on the host, and its address. */
  link: string;
  linkAddress: string;
  /** The link's end in the namespace: what the guest's traffic looks like on the host. */
  innerAddress: string;
  hostAddress: string;
  uids: Record<Role, number>;
}

/** First 6 hex digits of the SHA-256 of the data folder's real path. */
export async function instanceId(data: string): Promise<string> {
  return createHash('sha256')
    .update(await realpath(data))
    .digest('hex')
    .slice(0, 6);
}

export function blockOf(instance: string, index: number, ranges: Ranges, uidBase: number): Block {
  const guests = part(ranges.guests, index);
  const links = part(ranges.links, index);
  const slots = Math.min(size(guests), size(links) / 2) - 1;
  return { instance, index, guests, links, slots, uidBase: uidBase + index * (slots + 1) * ROLES.length };
}

export function slotAddresses(block: Block, index: number): SlotAddresses {
  if (!Number.isInteger(index) || index < 1 || index > block.slots) {
    throw new ThawError('internal', `slot ${index} is not one of 1…${block.slots}`);
  }
  const uid = block.uidBase + index * ROLES.length;
  return {
    index,
    netns: `${netnsPrefix(block.instance)}${index}`,
    link: `${linkPrefix(block.instance)}${index}`,
    linkAddress: formatAddress(block.links.base + 2 * index),
    innerAddress: formatAddress(block.links.base + 2 * index + 1),
    hostAddress: formatAddress(block.guests.base + index),
    uids: { vmm: uid, pager: uid + 1, blockstore: uid + 2 },
  };
}

/** Where the host answers guests' DNS: of the links' range, so that what it asks leaves as guests' packets do. */
export function dnsAddress({ links }: Pick<Block, 'links'>): string {
  return formatAddress(links.base);
}

export function netnsPrefix(instance: string): string {
  return `thaw-${instance}-`;
}

export function linkPrefix(instance: string): string {
  return `tw${instance}-`;
}

/** The slot a namespace's or link's name belongs to; undefined for any other name. */
export function slotIndex(name: string, prefix: string): number | undefined {
  const rest = name.startsWith(prefix) ? name.slice(prefix.length) : '';
  return /^[1-9][0-9]*$/.test(rest) ? Number(rest) : undefined;
}

/** Reads `a.b.c.d/n`. Throws `invalid_request` for anything else, host bits included. */
export function parseRange(text: string): Range {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text);
  const numbers = match?.slice(1).map(Number);
  const prefix = numbers?.pop();
  if (numbers === undefined || prefix === undefined || prefix > 32 || numbers.some((octet) => octet > 255)) {
    throw new ThawError('invalid_request', `${text} is no IPv4 range`);
  }
  const range = { base: numbers.reduce((sum, octet) => sum * 256 + octet, 0), prefix };
  if (range.base % size(range) !== 0) throw new ThawError('invalid_request', `${text} has host bits set`);
  return range;
}

export function formatRange(range: Range): string {
  return `${formatAddress(range.base)}/${range.prefix}`;
}

export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
}

export function overlap(a: Range, b: Range): boolean {
  return a.base < b.base + size(b) && b.base < a.base + size(a);
}

/** Addresses in the range. */
export function size(range: Range): number {
  return 2 ** (32 - range.prefix);
}

function part(range: Range, index: number): Range {
  const prefix = range.prefix + Math.log2(BLOCKS);
  if (prefix > 29) throw new ThawError('invalid_request', `${formatRange(range)} is too small for Thaw`);
  return { base: range.base + index * size({ base: 0, prefix }), prefix };
}
