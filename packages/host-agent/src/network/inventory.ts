/** What the kernel has now: namespaces, links, routes, other people's rules. Only reads. */
import { readdir } from 'node:fs/promises';
import { z } from 'zod';
import { run } from '../os/run.ts';
import { linkPrefix, parseRange, type Range, slotIndex } from './addresses.ts';
import { netnsPath } from './paths.ts';

/** Names of all named network namespaces. */
export async function namespaces(): Promise<string[]> {
  return readdir(netnsPath('.')).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
}

/** Names of all interfaces of this namespace. */
export async function links(): Promise<string[]> {
  const { stdout } = await run(['ip', '-json', 'link', 'show']);
  return z
    .array(z.object({ ifname: z.string() }))
    .parse(JSON.parse(stdout || '[]'))
    .map((link) => link.ifname);
}

const routeSchema = z.object({
  type: z.string().optional(),
  dst: z.string(),
  dev: z.string().optional(),
  gateway: z.string().optional(),
  table: z.string().optional(),
});

export type Route = z.infer<typeof routeSchema>;

/** IPv4 routes of every table, or of the one given. */
export async function routes(table = 'all'): Promise<Route[]> {
  const { stdout } = await run(['ip', '-json', '-4', 'route', 'show', 'table', table]);
  return z.array(routeSchema).parse(JSON.parse(stdout || '[]'));
}

/** Ranges that the machine routes, apart from the default route and what instance `own` has put there. */
export async function foreignRoutes(own: string): Promise<Range[]> {
  return (await routes())
    .filter((route) => route.dst !== 'default' && route.type !== 'unreachable' && route.type !== 'broadcast')
    .filter((route) => slotIndex(route.dev ?? '', linkPrefix(own)) === undefined)
    .map((route) => parseRange(route.dst.includes('/') ? route.dst : `${route.dst}/32`));
}

/** The interface of the default route; undefined without one. */
export async function defaultUplink(): Promise<string | undefined> {
  const found = (await routes('main')).find((route) => route.dst === 'default' && route.dev !== undefined);
  return found?.dev;
}

const chainsSchema = z.object({
  nftables: z.array(
    z.object({
      chain: z
        .object({
          family: z.string(),
          table: z.string(),
          name: z.string(),
          hook: z.string().optional(),
          policy: z.string().optional(),
        })
        .optional(),
    }),
  ),
});

/** Chains of others that drop forwarded packets unless they know them: no rule of ours can overrule them. */
export async function droppingForwardChains(ownTables: RegExp): Promise<string[]> {
  const { stdout } = await run(['nft', '-j', 'list', 'chains']);
  return chainsSchema
    .parse(JSON.parse(stdout))
    .nftables.flatMap(({ chain }) => (chain === undefined ? [] : [chain]))
    .filter((chain) => chain.hook === 'forward' && chain.policy === 'drop' && !ownTables.test(chain.table))
    .map((chain) => `${chain.family} ${chain.table} ${chain.name}`);
}
