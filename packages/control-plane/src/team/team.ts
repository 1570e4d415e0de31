/** Teams as an operator administrates them, and the own one as its keys see it. */
import {
  type ChangeTeam,
  type CreatedTeam,
  type CreateTeam,
  DEFAULT_TEAM,
  newTeamId,
  QUOTA_FIELDS,
  type TeamInfo,
  ThawError,
  type UpdateTeam,
} from '@thaw/api';
import { makeKey } from '../auth/keys.ts';
import { toColumns, toGrantColumns, toGranted, toTeamQuota } from '../auth/quota.ts';
import { measureUsage } from '../auth/table.ts';
import { type Database, isTaken } from '../db/connect.ts';
import {
  countTeams,
  findTeam,
  findTeamByName,
  insertTeam,
  listTeams,
  type TeamPatch,
  type TeamRow,
  updateTeam,
} from './table.ts';

/** A list of teams is not paged. */
const TEAMS_MAX = 1000;
/** Of the key that a team is made with. */
const FIRST_KEY = 'admin';

/** With a first key, which may administrate the team. */
export async function createTeam(db: Database, { name, granted }: CreateTeam): Promise<CreatedTeam> {
  if (name === DEFAULT_TEAM) throw new ThawError('already_exists', `team ${name} exists`);
  const id = newTeamId();
  return await db.transaction().execute(async (transaction) => {
    if ((await countTeams(transaction)) >= TEAMS_MAX)
      throw new ThawError('exhausted', `there are at most ${TEAMS_MAX} teams: delete some`);
    await insertTeam(transaction, { id, name, ...toGrantColumns(granted) }).catch((error) => {
      throw isTaken(error) ? new ThawError('already_exists', `team ${name} exists`) : error;
    });
    const wish = { name: FIRST_KEY, admin: true, operator: false, quota: {} };
    const key = await makeKey(transaction, id, wish);
    return { ...(await tell(transaction, (await findTeam(transaction, id))!)), key };
  });
}

/** Oldest first. */
export async function listAllTeams(db: Database): Promise<TeamInfo[]> {
  const teams: TeamInfo[] = [];
  for (const row of await listTeams(db, TEAMS_MAX)) teams.push(await tell(db, row));
  return teams;
}

export async function getTeam(db: Database, nameOrId: string): Promise<TeamInfo> {
  return tell(db, await requireTeam(db, nameOrId));
}

/** By an operator: its name, and what it may have. */
export async function changeTeam(
  db: Database,
  nameOrId: string,
  { name, granted }: ChangeTeam,
): Promise<TeamInfo> {
  const { id } = await requireTeam(db, nameOrId);
  if (name === DEFAULT_TEAM && id !== DEFAULT_TEAM)
    throw new ThawError('already_exists', `team ${name} exists`);
  return update(db, id, { ...(name !== undefined && { name }), ...toGrantColumns(granted) });
}

/** By itself: within what it is granted. */
export async function changeOwnTeam(db: Database, teamId: string, { quota }: UpdateTeam): Promise<TeamInfo> {
  const granted = toGranted(await requireTeam(db, teamId));
  for (const field of QUOTA_FIELDS) {
    if ((quota[field] ?? 0) > (granted[field] ?? Number.POSITIVE_INFINITY))
      throw new ThawError('forbidden', `${field}: an operator grants this team ${granted[field]} at most`);
  }
  return update(db, teamId, toColumns(quota));
}

export async function requireTeam(db: Database, nameOrId: string): Promise<TeamRow> {
  const row = nameOrId.includes('\0') ? undefined : await findTeamByName(db, nameOrId);
  if (!row) throw new ThawError('not_found', `team ${nameOrId} does not exist`);
  return row;
}

async function update(db: Database, id: string, patch: TeamPatch): Promise<TeamInfo> {
  const row = await updateTeam(db, id, patch).catch((error) => {
    throw isTaken(error) ? new ThawError('already_exists', `team ${patch.name} exists`) : error;
  });
  if (!row) throw new ThawError('not_found', `team ${id} does not exist`);
  return tell(db, row);
}

async function tell(db: Database, row: TeamRow): Promise<TeamInfo> {
  return {
    id: row.id,
    name: row.name,
    quota: toTeamQuota(row),
    granted: toGranted(row),
    usage: (await measureUsage(db, row.id)).team,
    ...(row.closing_at !== null && { closing: true as const }),
    created_at: row.created_at.toISOString(),
  };
}
