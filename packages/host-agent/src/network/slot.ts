/** Building and removing the namespace of one slot with its link to the host and its tap. */
import { writeFile } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import { run } from '../os/run.ts';
import {
  GATEWAY_ADDRESS,
  GATEWAY_MAC,
  GUEST_ADDRESS,
  GUEST_MAC,
  type SlotAddresses,
  TAP,
} from './addresses.ts';
import { links, namespaces } from './inventory.ts';
import { applyRules } from './nft.ts';
import { interfaceSetting, netnsPath } from './paths.ts';
import { slotRules } from './ruleset.ts';

/** `ip` lines, run in the namespace, that create the interface a guest is attached to. */
export type Plug = (slot: SlotAddresses) => string[];

/** A tap that the VMM's user may open. */
export const tapPlug: Plug = (slot) => [`tuntap add dev ${TAP} mode tap user ${slot.uids.vmm}`];

/** Settings of the namespace: it forwards between link and tap, strictly by source, and speaks no IPv6. */
const SETTINGS = [
  'net.ipv6.conf.all.disable_ipv6=1',
  'net.ipv6.conf.default.disable_ipv6=1',
  'net.ipv4.ip_forward=1',
  'net.ipv4.conf.all.rp_filter=1',
  'net.ipv4.conf.default.rp_filter=1',
  'net.ipv4.conf.all.arp_ignore=1',
  'net.ipv4.conf.all.send_redirects=0',
  'net.ipv4.conf.default.send_redirects=0',
];

/** Builds the slot. When a step fails, what the earlier ones made is removed again. */
export async function buildSlot(slot: SlotAddresses, plug: Plug): Promise<void> {
  await using undo = new AsyncDisposableStack();
  undo.defer(() => removeSlot(slot));
  await ip([
    `netns add ${slot.netns}`,
    `link add ${slot.link} type veth peer name eth0 netns ${slot.netns}`,
    `addr add ${slot.linkAddress}/31 dev ${slot.link}`,
  ]);
  const namespace = netnsPath(slot.netns);
  await Promise.all([
    // A kernel without IPv6 has no such setting.
    setting('ipv6', slot.link, 'disable_ipv6', '1').catch(() => {}),
    setting('ipv4', slot.link, 'forwarding', '0'),
    setting('ipv4', slot.link, 'rp_filter', '1'),
    run(['nsenter', `--net=${namespace}`, 'sysctl', '-e', '-q', '-w', ...SETTINGS]),
    applyRules(slotRules(slot), namespace),
  ]);
  await ip(
    [
      'link set lo up',
      `addr add ${slot.innerAddress}/31 dev eth0`,
      'link set eth0 up',
      ...plug(slot),
      `link set ${TAP} address ${GATEWAY_MAC}`,
      `addr add ${GATEWAY_ADDRESS}/30 dev ${TAP}`,
      `link set ${TAP} up`,
      `neigh replace ${GUEST_ADDRESS} lladdr ${GUEST_MAC} nud permanent dev ${TAP}`,
      `route add default via ${slot.linkAddress} dev eth0`,
    ],
    slot.netns,
  );
  await ip([
    `link set ${slot.link} up`,
    `route add ${slot.hostAddress}/32 via ${slot.innerAddress} dev ${slot.link} src ${slot.linkAddress}`,
  ]);
  undo.move();
}

/** The host forwards what comes out of the slot from now on. One write: the firewall's rules are there before. */
export async function openSlot(slot: Pick<SlotAddresses, 'link'>): Promise<void> {
  await setting('ipv4', slot.link, 'forwarding', '1');
}

/** Removes what is there of the slot. Throws when something of it is still there afterwards. */
export async function removeSlot(slot: Pick<SlotAddresses, 'link' | 'netns'>): Promise<void> {
  const lines: string[] = [];
  // The link goes by itself: a namespace lives on while a process is in it, and would keep its end.
  if ((await links()).includes(slot.link)) lines.push(`link del ${slot.link}`);
  if ((await namespaces()).includes(slot.netns)) lines.push(`netns del ${slot.netns}`);
  if (lines.length === 0) return;
  const failure = await ip(lines, undefined, ['-force']).then(
    () => undefined,
    (error: unknown) => error,
  );
  if ((await links()).includes(slot.link) || (await namespaces()).includes(slot.netns)) {
    throw new ThawError('internal', 'a network slot could not be removed', { cause: failure });
  }
}

/** Runs `ip` lines as one batch, which stops at the first that fails. */
export async function ip(lines: string[], netns?: string, flags: string[] = []): Promise<void> {
  const where = netns === undefined ? [] : ['-netns', netns];
  await run(['ip', ...where, ...flags, '-batch', '-'], { input: `${lines.join('\n')}\n` });
}

async function setting(family: 'ipv4' | 'ipv6', device: string, name: string, value: string): Promise<void> {
  await writeFile(interfaceSetting(family, device, name), value);
}
