/**
 * Quotas of keys and teams. What takes something writes its row and counts, in one transaction that holds the team's
 * row: however many come at once, together they never have more than the quota, and what was refused left nothing.
 */
import { QUOTA_FIELDS, type Quota, type QuotaField, ThawError, type Usage } from '@thaw/api';
import type { Database } from '../db/connect.ts';
import { lockTeam } from '../team/table.ts';
import { findKey, measureUsage } from './table.ts';

/** Whose quotas count. Sandboxes older than keys' names have no key. */
export interface Owner {
  teamId: string;
  keyId: string | null;
}

type Limits = Record<`max_${QuotaField}`, number | null>;
type Grants = Record<`granted_${QuotaField}`, number | null>;
type Change = { [field in QuotaField]?: number | null | undefined };

export function toQuota(row: Limits): Quota {
  const { max_sandboxes, max_vcpus, max_memory_mb, max_disk_mb } = row;
  return { sandboxes: max_sandboxes, vcpus: max_vcpus, memory_mb: max_memory_mb, disk_mb: max_disk_mb };
}

/** What the operator lets a team have. */
export function toGranted(row: Grants): Quota {
  const { granted_sandboxes, granted_vcpus, granted_memory_mb, granted_disk_mb } = row;
  return {
    sandboxes: granted_sandboxes,
    vcpus: granted_vcpus,
    memory_mb: granted_memory_mb,
    disk_mb: granted_disk_mb,
  };
}

/** What counts for a team: the smaller one of its own quota and what it is granted. */
export function toTeamQuota(row: Limits & Grants): Quota {
  const [own, granted] = [toQuota(row), toGranted(row)];
  const least = (field: QuotaField) =>
    own[field] === null || granted[field] === null
      ? (own[field] ?? granted[field])
      : Math.min(own[field], granted[field]);
  return Object.fromEntries(QUOTA_FIELDS.map((field) => [field, least(field)])) as Quota;
}

/** The columns that a change of a quota sets; what it leaves out is not among them. */
export function toColumns(change: Change): Partial<Limits> {
  return columns('max', change);
}

export function toGrantColumns(change: Change): Partial<Grants> {
  return columns('granted', change);
}

function columns<P extends string>(
  prefix: P,
  change: Change,
): Partial<Record<`${P}_${QuotaField}`, number | null>> {
  const given = QUOTA_FIELDS.filter((field) => change[field] !== undefined);
  return Object.fromEntries(given.map((field) => [`${prefix}_${field}`, change[field]])) as Partial<
    Record<`${P}_${QuotaField}`, number | null>
  >;
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
    // Its keys are revoked; a control plane may not have heard of it yet.
    if (team?.closing_at) throw new ThawError('unauthenticated', 'the API key is not valid');
    const written = await write(transaction);
    if (written === undefined || team === undefined) return written;
    const key = owner.keyId === null ? undefined : await findKey(transaction, owner.teamId, owner.keyId);
    const ofTeam = toTeamQuota(team);
    const limits = [ofTeam, ...(key === undefined ? [] : [toQuota(key)])];
    if (limits.every((quota) => QUOTA_FIELDS.every((field) => quota[field] === null))) return written;
    const usage = await measureUsage(transaction, owner.teamId);
    check(`team ${team.name}`, ofTeam, usage.team);
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
