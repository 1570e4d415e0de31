import { QUOTA_FIELDS, type Quota, type QuotaField, ThawError, type Usage } from '@thaw/api';
import type { Keys } from '@thaw/sdk';
import { type Command, InvalidArgumentError } from 'commander';
import { type Context, wholeNumber } from '../context.ts';
import { printFacts, printJson } from '../print.ts';

type Limit = number | 'none';

/** Left out: as it is. */
export interface QuotaOptions {
  sandboxes?: Limit;
  vcpus?: Limit;
  memory?: Limit;
  disk?: Limit;
}

/** `none` takes a limit away. */
export function quotaOptions(command: Command): Command {
  const limits: [keyof QuotaOptions & string, string, string][] = [
    ['sandboxes', 'n', 'sandboxes, paused ones too'],
    ['vcpus', 'n', 'virtual CPUs of sandboxes that are not paused'],
    ['memory', 'mb', 'memory of sandboxes that are not paused, in MiB'],
    ['disk', 'mb', 'disks of all sandboxes, in MiB'],
  ];
  for (const [name, unit, what] of limits)
    command.option(`--${name} <${unit}>`, `the most ${what}; none: no limit`, parseLimit);
  return command;
}

function parseLimit(text: string): Limit {
  if (text === 'none') return text;
  const limit = wholeNumber(text);
  if (limit > 2_147_483_647) throw new InvalidArgumentError('It is too large.');
  return limit;
}

export interface OfTeam {
  /** Its name or id; left out: the own one. */
  team?: string;
}

export function keysOf(context: Context, { team }: OfTeam): Keys {
  const thaw = context.thaw();
  return team === undefined ? thaw.keys : thaw.teams.keys(team);
}

export function toQuota({ sandboxes, vcpus, memory, disk }: QuotaOptions): Partial<Quota> {
  const limits = { sandboxes, vcpus, memory_mb: memory, disk_mb: disk };
  const given = Object.entries(limits).filter(([, limit]) => limit !== undefined);
  return Object.fromEntries(given.map(([field, limit]) => [field, limit === 'none' ? null : limit]));
}

/** `2 of 5`, or what is used where there is no limit. */
export function share({ quota, usage }: { quota: Quota; usage: Usage }, field: QuotaField): string {
  const limit = quota[field];
  return limit === null ? `${usage[field]}` : `${usage[field]} of ${limit}`;
}

/** Changes what the options name, and shows the quota as it is then. */
export async function quota(context: Context, id: string, options: QuotaOptions & OfTeam): Promise<void> {
  const change = toQuota(options);
  const changes = Object.keys(change).length > 0;
  if (id === 'team' && options.team !== undefined)
    throw new ThawError('invalid_request', 'what another team may have is changed by `thaw team quota`');
  const keys = keysOf(context, options);
  const { team } = context.thaw();
  const found =
    id === 'team'
      ? await (changes ? team.update({ quota: change }) : team.get())
      : await (changes ? keys.update(id, { quota: change }) : one(await keys.list(), id));
  await tellQuota(context, found);
}

export async function tellQuota(context: Context, found: { quota: Quota; usage: Usage }): Promise<void> {
  if (context.json) return printJson(found);
  await printFacts(Object.fromEntries(QUOTA_FIELDS.map((field) => [field, share(found, field)])));
}

function one<T extends { id: string }>(keys: T[], id: string): T {
  const key = keys.find((candidate) => candidate.id === id);
  if (key === undefined) throw new ThawError('not_found', `key ${id} does not exist`);
  return key;
}
