import { ThawError } from '@thaw/api';
import { pruneBuilds } from '../build/table.ts';
import { throughOutage } from '../db/connect.ts';
import type { Plane } from '../plane.ts';
import { countUsers } from '../sandbox/table.ts';
import { baseOf, parseName, readName, tagged, verbKey } from './name.ts';
import { findNamed, findNamedTags, notFound } from './resolve.ts';
import { findTemplate, removeTemplate, type TemplateRow } from './table.ts';

/** One tag, the default one if none is said. Sandboxes made of it keep the builds they need. */
export async function deleteSnapshot(plane: Plane, teamId: string, ref: string): Promise<void> {
  const name = readName(ref);
  const row = name && (await findNamed(plane, teamId, name));
  if (row === undefined) throw notFound(ref);
  checkDeletable(row);
  await plane.templateVerbs.run(
    verbKey(teamId, row.name),
    `delete ${row.id}`,
    `template ${row.name} is being deleted`,
    async () => {
      if ((await findTemplate(plane.db, teamId, row.id)) === undefined) throw notFound(ref);
      await remove(plane, teamId, [row.id]);
    },
  );
}

/**
 * One tag where the reference says one, else the template with all its tags. Throws `invalid_request` while sandboxes that
 * were made of it run or are paused.
 */
export async function deleteUnused(plane: Plane, teamId: string, ref: string): Promise<void> {
  const name = parseName(ref);
  const rows = await findNamedTags(plane, teamId, name);
  const base = rows[0] && baseOf(rows[0].id);
  const meant = rows.filter(({ id }) => name.tag === undefined || id === tagged(base!, name.tag));
  if (meant[0] === undefined) throw notFound(ref);
  checkDeletable(meant[0]);
  const ids = meant.map(({ id }) => id);
  const users = await countUsers(plane.db, ids);
  if (users > 0)
    throw new ThawError(
      'invalid_request',
      `template '${ref}' is in use by ${users} running or paused sandboxes`,
    );
  await removeTags(plane, teamId, meant[0].name, ids);
}

/** `name`: of any of the rows; they are all of one template. */
export async function removeTags(
  plane: Plane,
  teamId: string,
  name: string,
  ids: readonly string[],
): Promise<void> {
  const busy = `template ${baseOf(name)} is being changed`;
  await plane.templateVerbs.after(verbKey(teamId, name), `delete ${ids.join(' ')}`, busy, () =>
    remove(plane, teamId, ids),
  );
}

/** A row goes only after the host's head did. */
async function remove(plane: Plane, teamId: string, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    const row = await findTemplate(plane.db, teamId, id);
    if (row === undefined) continue;
    await plane.host.deleteSnapshot(row.id);
    await throughOutage(() => removeTemplate(plane.db, row.id, row.build_id));
  }
  await throughOutage(() => pruneBuilds(plane.db));
}

function checkDeletable(row: TemplateRow): void {
  if (row.type === 'base')
    throw new ThawError('conflict', `${row.name} is a base template and cannot be deleted`);
}
