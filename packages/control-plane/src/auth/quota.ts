/**
 * Quotas of keys and teams. What takes something writes its row and counts, in one transaction that holds the team's
 * row: however many come at once, together they never have more than the quota, and what was refused left nothing.
 */
import { QUOTA_FIELDS, type Quota, type QuotaField, ThawError, type Usage } from '@thaw/api';
import type { Database } from '../db/connect.ts';
import { findKey, lockTeam, measureUsage } from './table.ts';

/** Whose quotas count. Sandboxes older than keys' names have no key. */
export interface Owner {
  teamId: string;
  keyId: string | null;
}

type Limits = Record<`max_${QuotaField}`, number | null>;

export function toQuota(row: Limits): Quota {
  const { max_sandboxes, max_vcpus, max_memory_mb, max_disk_mb } = row;
  return { sandboxes: max_sandboxes, vcpus: max_vcpus, memory_mb: max_memory_mb, disk_mb: max_disk_mb };
}

/** The columns that a change of a quota sets; what it leaves out is not among them. */
export function toColumns(change: { [field in QuotaField]?: number | null | undefined }): Partial<Limits> {
  const given = QUOTA_FIELDS.filter((field) => change[field] !== undefined);
  return Object.fromEntries(given.map((field) => [`max_${field}`, change[field]]));
}

/**
 * Runs `write`, which takes something for `owner`, and takes it back with `exhausted` if that is more than a quota
 * allows. `write` answers undefined when it took nothing: then nothing is counted. It must use the database it is given.
 */
export function admit<T>(
  db: Database,
  owner: Owner,
  write: (db: Database) => Promise<T | undefined>,
): Promise<T | undefined> {
  return db.transaction().execute(async (transaction) => {
    const team = await lockTeam(transaction, owner.teamId);
    const written = await write(transaction);
    if (written === undefined || team === undefined) return written;
    const key = owner.keyId === null ? undefined : await findKey(transaction, owner.teamId, owner.keyId);
    const limits = [toQuota(team), ...(key === undefined ? [] : [toQuota(key)])];
    if (limits.every((quota) => QUOTA_FIELDS.every((field) => quota[field] === null))) return written;
    const usage = await measureUsage(transaction, owner.teamId);
    check(`team ${team.name}`, toQuota(team), usage.team);
    if (key !== undefined) check(`key ${key.name || key.id}`, toQuota(key), usage.byKey.get(key.id));
    return written;
  });
}

function check(who: string, quota: Quota, usage: Usage | undefined): void {
  const over = QUOTA_FIELDS.filter((field) => quota[field] !== null && (usage?.[field] ?? 0) > quota[field]);
  if (over.length === 0) return;
  const numbers = over.map(
    (field) => `${field}: the most is ${quota[field]}, this would make ${usage?.[field]}`,
  );
  throw new ThawError('exhausted', `the quota of ${who} is used up: ${numbers.join('; ')}`);
}
