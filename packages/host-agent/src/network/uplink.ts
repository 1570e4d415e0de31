/** How guests' traffic leaves the host: routes, the uplink's forwarding, and what may stand in the way. */
import { readFile, writeFile } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import { run } from '../os/run.ts';
import { type Block, dnsAddress, formatRange } from './addresses.ts';
import { amendClaim } from './claim.ts';
import { defaultUplink, routes } from './inventory.ts';
import { interfaceSetting } from './paths.ts';
import { ip } from './slot.ts';

export interface Uplink {
  device: string;
  /** The next hop; absent where the device itself is the way, or the main table knows it. */
  gateway?: string;
  /** Named by the operator: guests use it even when the host's own default route is another. */
  chosen: boolean;
}

type RoutedBlock = Pick<Block, 'index' | 'guests' | 'links'>;

/** Policy rules and tables of block i are numbered from here. */
const RULE_BASE = 8400;
const TABLE_BASE = 84_000;

/**
 * `text` is `DEVICE` or `DEVICE/GATEWAY`; undefined means the default route's device.
 * Undefined when the machine has no default route: guests have no internet then.
 */
export async function findUplink(text: string | undefined): Promise<Uplink | undefined> {
  if (text === undefined) {
    const device = await defaultUplink();
    return device === undefined ? undefined : { device, chosen: false };
  }
  const [device = '', gateway] = text.split('/');
  if (
    !/^[A-Za-z0-9_.:@-]{1,15}$/.test(device) ||
    (gateway !== undefined && !/^[0-9.]{7,15}$/.test(gateway))
  ) {
    throw new ThawError(
      'invalid_request',
      `the uplink ${JSON.stringify(text)} is neither DEVICE nor DEVICE/GATEWAY`,
    );
  }
  const known = (await routes('main')).find(
    (route) => route.dst === 'default' && route.dev === device,
  )?.gateway;
  const hop = gateway ?? known;
  return { device, chosen: true, ...(hop === undefined ? {} : { gateway: hop }) };
}

/** Routes and the address of the block: no stale address leaves the host, and a chosen uplink is used by guests alone. */
export async function addRoutes(block: Block, uplink: Uplink | undefined): Promise<void> {
  await removeRoutes(block);
  const lines = ranges(block).map((range) => `route add unreachable ${range}`);
  lines.push(`addr add ${dnsAddress(block)}/32 dev lo`);
  if (uplink?.chosen) {
    const via = uplink.gateway === undefined ? '' : `via ${uplink.gateway} `;
    const from = formatRange(block.links);
    lines.push(
      `route replace default ${via}dev ${uplink.device} table ${table(block)}`,
      // First the main table without its default route: the host's answers and the guests' links stay reachable.
      `rule add pref ${rule(block)} from ${from} lookup main suppress_prefixlength 0`,
      `rule add pref ${rule(block) + 1} from ${from} lookup ${table(block)}`,
    );
  }
  await ip(lines);
}

export async function removeRoutes(block: RoutedBlock): Promise<void> {
  const lines: string[] = [];
  const found = await routes('main');
  for (const range of ranges(block)) {
    if (found.some((route) => route.type === 'unreachable' && route.dst === range)) {
      lines.push(`route del unreachable ${range}`);
    }
  }
  const everywhere = await routes();
  if (everywhere.some((route) => route.type === 'local' && route.dst === dnsAddress(block)))
    lines.push(`addr del ${dnsAddress(block)}/32 dev lo`);
  const { stdout } = await run(['ip', '-json', '-4', 'rule', 'show']);
  const rules = JSON.parse(stdout || '[]') as { priority: number; src?: string; srclen?: number }[];
  for (const { priority, src, srclen } of rules) {
    const own = priority === rule(block) || priority === rule(block) + 1;
    if (own && `${src}/${srclen}` === formatRange(block.links)) {
      lines.push(`rule del pref ${priority} from ${formatRange(block.links)}`);
    }
  }
  if (everywhere.some((route) => route.dst === 'default' && route.table === String(table(block)))) {
    lines.push(`route flush table ${table(block)}`);
  }
  if (lines.length > 0) await ip(lines);
}

/**
 * Lets the uplink's answers be forwarded to guests. True when that was off: then Thaw has switched it on, for the
 * device alone, and keeps out all other traffic that would be forwarded now.
 */
export async function enableForwarding(
  claimsDir: string,
  instance: string,
  device: string,
): Promise<boolean> {
  const file = interfaceSetting('ipv4', device, 'forwarding');
  let ours = false;
  await amendClaim(claimsDir, instance, async (own, others) => {
    const before = (await readFile(file, 'utf8').catch(() => missing(device))).trim();
    ours = before === '0' || [own, ...others].some((claim) => claim.forwarding.includes(device));
    if (before === '0') await writeFile(file, '1');
    if (ours && !own.forwarding.includes(device)) own.forwarding.push(device);
  });
  return ours;
}

/** The last instance that needs it switches off what the first one switched on. */
export async function restoreForwarding(claimsDir: string, instance: string): Promise<void> {
  await amendClaim(claimsDir, instance, async (own, others) => {
    for (const device of own.forwarding) {
      if (others.some((claim) => claim.forwarding.includes(device))) continue;
      // The interface may be gone by now.
      await writeFile(interfaceSetting('ipv4', device, 'forwarding'), '0').catch(() => {});
    }
    own.forwarding = [];
  });
}

function missing(device: string): never {
  throw new ThawError('invalid_request', `there is no network interface ${device} to use as the uplink`);
}

function ranges(block: RoutedBlock): string[] {
  return [formatRange(block.guests), formatRange(block.links)];
}

function rule(block: RoutedBlock): number {
  return RULE_BASE + 2 * block.index;
}

function table(block: RoutedBlock): number {
  return TABLE_BASE + block.index;
}
