/**
 * Instances live side by side on a machine because each claims its own block of addresses and users. A claim is a
 * file in a machine-wide folder under a lock; it counts while its host agent lives or a namespace of it is left.
 */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import { z } from 'zod';
import { exists } from '../os/exists.ts';
import { lock } from '../os/lock.ts';
import { identify, isAlive } from '../os/process.ts';
import {
  BLOCKS,
  type Block,
  blockOf,
  formatRange,
  netnsPrefix,
  overlap,
  parseRange,
  type Range,
  type Ranges,
  ROLES,
  slotIndex,
} from './addresses.ts';
import { foreignRoutes, namespaces } from './inventory.ts';
import { claimFile, claimLock, recordedClaim } from './paths.ts';

const claimSchema = z.object({
  instance: z.string().regex(/^[0-9a-f]{6}$/),
  data: z.string(),
  pid: z.number().int(),
  startTime: z.string(),
  block: z.number().int(),
  guests: z.string(),
  links: z.string(),
  uids: z.tuple([z.number().int(), z.number().int()]),
  /** Interfaces whose forwarding an instance switched on: the last one to leave switches it off. */
  forwarding: z.array(z.string()).default([]),
});

export type Claim = z.infer<typeof claimSchema>;

export interface ClaimOptions {
  claimsDir: string;
  data: string;
  instance: string;
  ranges: Ranges;
  uidBase: number;
  /** Removes what is left on the host of an instance that nobody will ever start again. */
  sweep: (orphan: Claim) => Promise<void>;
}

/**
 * Claims a block for this process, the one it had before if it can.
 * Throws `conflict` when another host agent runs on the same data folder, `exhausted` when every block overlaps
 * another instance or a route of the machine.
 */
export async function claimBlock(options: ClaimOptions): Promise<Block> {
  await mkdir(options.claimsDir, { recursive: true, mode: 0o755 });
  await using _lock = await lock(claimLock(options.claimsDir));
  const claims = await readClaims(options.claimsDir);
  const own = claims.find((claim) => claim.instance === options.instance);
  if (own !== undefined && (await isAlive(own))) {
    throw new ThawError('conflict', 'another host agent runs on this data folder');
  }
  const { others, orphans } = await living(
    claims.filter((claim) => claim !== own),
    options,
  );
  const routes = await foreignRoutes(options.instance);
  const recorded = own?.block ?? (await readRecorded(options.data));
  const block = candidates(recorded)
    .map((index) => blockOf(options.instance, index, options.ranges, options.uidBase))
    .find((candidate) => isFree(candidate, others, candidate.index === own?.block ? [] : routes));
  if (block === undefined) {
    throw new ThawError(
      'exhausted',
      'every address block of Thaw overlaps a route of this machine or another instance',
    );
  }
  const self = (await identify(process.pid))!;
  const claim: Claim = {
    ...self,
    instance: options.instance,
    data: options.data,
    block: block.index,
    guests: formatRange(block.guests),
    links: formatRange(block.links),
    uids: uidsOf(block),
    // Forwarding that an orphan switched on is this instance's to switch off now.
    forwarding: [...new Set([...(own?.forwarding ?? []), ...orphans.flatMap((orphan) => orphan.forwarding)])],
  };
  await write(claimFile(options.claimsDir, options.instance), claim);
  await write(recordedClaim(options.data), { block: block.index });
  return block;
}

/** This process stops, its slots in use stay: the claim holds as long as a namespace of it is left. */
export async function leaveClaim(claimsDir: string, instance: string): Promise<void> {
  await amendClaim(claimsDir, instance, async (own) => {
    own.pid = 0;
    own.startTime = '';
  });
}

/** Gives the block back; it is recorded in the data folder, to be claimed again if it is still free then. */
export async function releaseClaim(claimsDir: string, instance: string): Promise<void> {
  await using _lock = await lock(claimLock(claimsDir));
  await rm(claimFile(claimsDir, instance), { force: true });
}

/** Runs `action` on all claims under the lock and keeps what it changed in this instance's own. */
export async function amendClaim(
  claimsDir: string,
  instance: string,
  action: (own: Claim, others: Claim[]) => Promise<void>,
): Promise<void> {
  await using _lock = await lock(claimLock(claimsDir));
  const claims = await readClaims(claimsDir);
  const own = claims.find((claim) => claim.instance === instance);
  if (own === undefined) return;
  await action(
    own,
    claims.filter((claim) => claim !== own),
  );
  await write(claimFile(claimsDir, instance), own);
}

async function readClaims(claimsDir: string): Promise<Claim[]> {
  const claims: Claim[] = [];
  for (const name of await readdir(claimsDir)) {
    if (!name.endsWith('.json')) continue;
    const text = await readFile(path.join(claimsDir, name), 'utf8');
    const parsed = claimSchema.safeParse(parseJson(text));
    // A torn file is a claim that was never acknowledged.
    if (parsed.success) claims.push(parsed.data);
    else await rm(path.join(claimsDir, name));
  }
  return claims;
}

/** Tells the claims that count from those that don't; the latter are swept and their files removed. */
async function living(
  claims: Claim[],
  options: ClaimOptions,
): Promise<{ others: Claim[]; orphans: Claim[] }> {
  const names = await namespaces();
  const others: Claim[] = [];
  const orphans: Claim[] = [];
  for (const claim of claims) {
    const left = names.some((name) => slotIndex(name, netnsPrefix(claim.instance)) !== undefined);
    const orphan = !(await isAlive(claim)) && (!left || !(await exists(claim.data)));
    (orphan ? orphans : others).push(claim);
  }
  for (const orphan of orphans) {
    await options.sweep(orphan);
    await rm(claimFile(options.claimsDir, orphan.instance), { force: true });
  }
  return { others, orphans };
}

function candidates(recorded: number | undefined): number[] {
  const all = Array.from({ length: BLOCKS }, (_, index) => index);
  if (recorded === undefined || !all.includes(recorded)) return all;
  return [recorded, ...all.filter((index) => index !== recorded)];
}

function isFree(block: Block, others: Claim[], routes: Range[]): boolean {
  const own = [block.guests, block.links];
  const taken = others.flatMap((claim) => [parseRange(claim.guests), parseRange(claim.links)]);
  if ([...taken, ...routes].some((range) => own.some((candidate) => overlap(candidate, range)))) return false;
  const [first, last] = uidsOf(block);
  return others.every((claim) => last < claim.uids[0] || first > claim.uids[1]);
}

function uidsOf(block: Block): [number, number] {
  return [block.uidBase, block.uidBase + (block.slots + 1) * ROLES.length - 1];
}

async function readRecorded(data: string): Promise<number | undefined> {
  const text = await readFile(recordedClaim(data), 'utf8').catch(() => '');
  const parsed = z.object({ block: z.number().int() }).safeParse(parseJson(text));
  return parsed.success ? parsed.data.block : undefined;
}

async function write(file: string, value: unknown): Promise<void> {
  await writeFile(file, `${JSON.stringify(value)}\n`, { mode: 0o644 });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
