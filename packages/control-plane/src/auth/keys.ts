/** Keys and quotas as a client manages them. */
import {
  type ApiKeyInfo,
  type CreatedKey,
  type CreateKey,
  KEY_ID,
  newApiKey,
  QUOTA_FIELDS,
  type TeamInfo,
  ThawError,
  type UpdateKey,
  type UpdateTeam,
  type Usage,
} from '@thaw/api';
import type { Database } from '../db/connect.ts';
import { keyColumns } from './key.ts';
import { toColumns, toQuota } from './quota.ts';
import {
  type ApiKeyRow,
  countKeys,
  findKey,
  findTeam,
  insertKey,
  listKeys,
  lockTeam,
  measureUsage,
  revokeKeyRow,
  type TeamRow,
  updateKey,
  updateTeam,
} from './table.ts';

/** A list of keys is not paged. */
const KEYS_MAX = 1000;

export async function createKey(db: Database, teamId: string, wish: CreateKey): Promise<CreatedKey> {
  const key = newApiKey();
  const columns = keyColumns(key);
  const { name, admin, quota } = wish;
  await db.transaction().execute(async (transaction) => {
    await lockTeam(transaction, teamId);
    if ((await countKeys(transaction, teamId)) >= KEYS_MAX)
      throw new ThawError('exhausted', `a team has at most ${KEYS_MAX} keys: revoke some`);
    await insertKey(transaction, { ...columns, team_id: teamId, name, admin, ...toColumns(quota) });
  });
  return { ...tell(await requireKey(db, teamId, columns.id)), key };
}

export async function listAllKeys(db: Database, teamId: string): Promise<ApiKeyInfo[]> {
  const rows = await listKeys(db, teamId);
  const { byKey } = await measureUsage(db, teamId);
  return rows.map((row) => tell(row, byKey.get(row.id)));
}

export async function changeKey(
  db: Database,
  teamId: string,
  id: string,
  { name, quota }: UpdateKey,
): Promise<ApiKeyInfo> {
  await requireKey(db, teamId, id);
  const patch = { ...(name !== undefined && { name }), ...toColumns(quota) };
  const row = await updateKey(db, teamId, id, patch);
  if (!row) throw revoked(id);
  return tell(row, (await measureUsage(db, teamId)).byKey.get(id));
}

/** A second time changes nothing. Its sandboxes go on and still count for the team. */
export async function revokeKey(db: Database, teamId: string, id: string): Promise<void> {
  await requireKey(db, teamId, id);
  await db.transaction().execute(async (transaction) => {
    await lockTeam(transaction, teamId);
    if (await revokeKeyRow(transaction, teamId, id)) return;
    if ((await findKey(transaction, teamId, id))?.revoked_at === null)
      throw new ThawError('conflict', `key ${id} is the last one that may administrate: make another first`);
  });
}

export async function getTeam(db: Database, teamId: string): Promise<TeamInfo> {
  return tellTeam(db, await findTeam(db, teamId), teamId);
}

export async function changeTeam(db: Database, teamId: string, { quota }: UpdateTeam): Promise<TeamInfo> {
  return tellTeam(db, await updateTeam(db, teamId, toColumns(quota)), teamId);
}

async function tellTeam(db: Database, row: TeamRow | undefined, teamId: string): Promise<TeamInfo> {
  if (!row) throw new ThawError('not_found', `team ${teamId} does not exist`);
  const usage = await measureUsage(db, teamId);
  return { id: row.id, name: row.name, quota: toQuota(row), usage: usage.team };
}

async function requireKey(db: Database, teamId: string, id: string): Promise<ApiKeyRow> {
  const row = KEY_ID.test(id) ? await findKey(db, teamId, id) : undefined;
  if (!row) throw new ThawError('not_found', `key ${id} does not exist`);
  return row;
}

function revoked(id: string): ThawError {
  return new ThawError('invalid_state', `key ${id} is revoked`);
}

function tell(row: ApiKeyRow, usage?: Usage): ApiKeyInfo {
  const none = Object.fromEntries(QUOTA_FIELDS.map((field) => [field, 0])) as Usage;
  return {
    id: row.id,
    name: row.name,
    prefix: row.prefix,
    admin: row.admin,
    quota: toQuota(row),
    usage: usage ?? none,
    created_at: row.created_at.toISOString(),
  };
}
