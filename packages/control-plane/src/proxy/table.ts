import type { Selectable } from 'kysely';
import type { Database } from '../db/connect.ts';
import type { SandboxTable } from '../db/schema.ts';
import type { Route } from './route.ts';

const columns = [
  'id',
  'team_id',
  'revision',
  'status',
  'host_ip',
  'access_token',
  'traffic_token',
  'ingress',
  'auto_resume',
  'pause_mode',
] as const;

type RouteRow = Pick<Selectable<SandboxTable>, (typeof columns)[number]>;

/** Of every sandbox that is not stopped. */
export async function listRoutes(db: Database): Promise<Route[]> {
  const rows = await db.selectFrom('sandboxes').select(columns).where('status', '<>', 'stopped').execute();
  return rows.map(toRoute);
}

export async function findRoutes(db: Database, ids: readonly string[]): Promise<Route[]> {
  if (ids.length === 0) return [];
  const rows = await db
    .selectFrom('sandboxes')
    .select(columns)
    .where('id', 'in', [...ids])
    .execute();
  return rows.map(toRoute);
}

export function toRoute(row: RouteRow): Route {
  return {
    id: row.id,
    teamId: row.team_id,
    revision: row.revision,
    status: row.status,
    hostIp: row.host_ip,
    accessToken: row.access_token,
    trafficToken: row.traffic_token,
    ingress: row.ingress,
    autoResume: row.auto_resume,
    pauseMode: row.pause_mode,
  };
}
