import { QUOTA_FIELDS, type Quota, type QuotaField, ThawError, type Usage } from '@thaw/api';
import type { Context } from '../context.ts';
import { printFacts, printJson } from '../print.ts';

export type Limit = number | 'none';

/** Left out: as it is. */
export interface QuotaOptions {
  sandboxes?: Limit;
  vcpus?: Limit;
  memory?: Limit;
  disk?: Limit;
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
export async function quota(context: Context, id: string, options: QuotaOptions): Promise<void> {
  const change = toQuota(options);
  const changes = Object.keys(change).length > 0;
  const { keys, team } = context.thaw();
  const found =
    id === 'team'
      ? await (changes ? team.update({ quota: change }) : team.get())
      : await (changes ? keys.update(id, { quota: change }) : one(await keys.list(), id));
  if (context.json) return printJson(found);
  await printFacts(Object.fromEntries(QUOTA_FIELDS.map((field) => [field, share(found, field)])));
}

function one<T extends { id: string }>(keys: T[], id: string): T {
  const key = keys.find((candidate) => candidate.id === id);
  if (key === undefined) throw new ThawError('not_found', `key ${id} does not exist`);
  return key;
}
