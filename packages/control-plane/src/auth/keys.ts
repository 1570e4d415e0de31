/** Keys and their quotas as a client manages them. */
import {
  type ApiKeyInfo,
  type CreatedKey,
  type CreateKey,
  DEFAULT_TEAM,
  KEY_ID,
  newApiKey,
  QUOTA_FIELDS,
  ThawError,
  type UpdateKey,
  type Usage,
} from '@thaw/api';
import type { Database } from '../db/connect.ts';
import { noteTarget } from '../http/request.ts';
import { lockTeam } from '../team/table.ts';
import { type Caller, keyColumns } from './key.ts';
import { toColumns, toQuota } from './quota.ts';
import {
  type ApiKeyRow,
  countKeys,
  findKey,
  insertKey,
  listKeys,
  measureUsage,
  revokeKeyRow,
  updateKey,
} from './table.ts';

/** A list of keys is not paged. */
const KEYS_MAX = 1000;

/** Who manages keys of a team; operators alone touch those of operators. */
export type Administrator = Pick<Caller, 'operator'>;

export async function createKey(
  db: Database,
  teamId: string,
  wish: CreateKey,
  { operator: mayMakeOperators }: Administrator,
): Promise<CreatedKey> {
  if (wish.operator && !mayMakeOperators) throw forOperators();
  if (wish.operator && teamId !== DEFAULT_TEAM)
    throw new ThawError('invalid_request', `operator: only keys of the team ${DEFAULT_TEAM} can have it`);
  return await db.transaction().execute((transaction) => makeKey(transaction, teamId, wish));
}

/** To be called in a transaction. */
export async function makeKey(db: Database, teamId: string, wish: CreateKey): Promise<CreatedKey> {
  const key = newApiKey();
  const columns = keyColumns(key);
  const { name, operator, quota } = wish;
  const admin = wish.admin || operator;
  const team = await lockTeam(db, teamId);
  if (!team || team.closing_at) throw new ThawError('not_found', `team ${teamId} does not exist`);
  if ((await countKeys(db, teamId)) >= KEYS_MAX)
    throw new ThawError('exhausted', `a team has at most ${KEYS_MAX} keys: revoke some`);
  await insertKey(db, { ...columns, team_id: teamId, name, admin, operator, ...toColumns(quota) });
  noteTarget(columns.id);
  return { ...tell(await requireKey(db, teamId, columns.id, { operator: true })), key };
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
  by: Administrator,
): Promise<ApiKeyInfo> {
  await requireKey(db, teamId, id, by);
  const patch = { ...(name !== undefined && { name }), ...toColumns(quota) };
  const row = await updateKey(db, teamId, id, patch);
  if (!row) throw revoked(id);
  return tell(row, (await measureUsage(db, teamId)).byKey.get(id));
}

/** A second time changes nothing. Its sandboxes go on and still count for the team. */
export async function revokeKey(db: Database, teamId: string, id: string, by: Administrator): Promise<void> {
  await requireKey(db, teamId, id, by);
  await db.transaction().execute(async (transaction) => {
    await lockTeam(transaction, teamId);
    if (await revokeKeyRow(transaction, teamId, id)) return;
    const left = await findKey(transaction, teamId, id);
    if (left?.revoked_at !== null) return;
    const last = left.operator ? "the last operator's or the last" : 'the last';
    throw new ThawError('conflict', `key ${id} is ${last} one that may administrate: make another first`);
  });
}

async function requireKey(db: Database, teamId: string, id: string, by: Administrator): Promise<ApiKeyRow> {
  const row = KEY_ID.test(id) ? await findKey(db, teamId, id) : undefined;
  if (!row) throw new ThawError('not_found', `key ${id} does not exist`);
  if (row.operator && !by.operator) throw forOperators();
  return row;
}

export function forOperators(): ThawError {
  return new ThawError('forbidden', "this API key is no operator's");
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
    operator: row.operator,
    quota: toQuota(row),
    usage: usage ?? none,
    created_at: row.created_at.toISOString(),
  };
}
