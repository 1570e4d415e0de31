import type { Plane } from '../../plane.ts';
import { type Listed, page, readToken } from '../../sandbox/list.ts';
import { baseOf } from '../../template/name.ts';
import { countSpawns, listTemplates, type Spawns } from '../../template/table.ts';
import type { E2bTemplate } from './schema.ts';
import { byTemplate, type Tagged, toE2bTemplate } from './template.ts';

/** Rows of a team, tags included, that are looked at for a list. */
const ROWS_MAX = 10_000;
const NONE: Spawns = { count: 0, last: undefined };

/** Templates of the team and base templates, the ones with the newest builds first; all of them without a limit. */
export async function listE2bTemplates(
  plane: Plane,
  teamId: string,
  limit = ROWS_MAX,
  token?: string,
): Promise<Listed<E2bTemplate>> {
  const rows = await listTemplates(plane.db, teamId, {}, ROWS_MAX);
  const spawns = await countSpawns(plane.db, teamId);
  const after = readToken(token);
  const groups = byTemplate(rows)
    .map((group) => ({ id: baseOf(group[0].id), created_at: group[0].created_at, group }))
    .filter(({ id, created_at }) => {
      if (after === undefined) return true;
      const older = created_at.getTime() - after.createdAt.getTime();
      return older < 0 || (older === 0 && id < after.id);
    })
    // As the token is read.
    .sort(
      (one, other) => other.created_at.getTime() - one.created_at.getTime() || (one.id < other.id ? 1 : -1),
    );
  return page(groups, limit, ({ id, group }) => toE2bTemplate(group, spawns.get(id) ?? NONE));
}

export async function spawnsOf(plane: Plane, teamId: string, [row]: Tagged): Promise<Spawns> {
  return (await countSpawns(plane.db, teamId)).get(baseOf(row.id)) ?? NONE;
}
