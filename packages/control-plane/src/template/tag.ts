/** Tags: further names of a template's builds, each a head of its own on the host. */
import { DEFAULT_TAG, ThawError } from '@thaw/api';
import { throughOutage } from '../db/connect.ts';
import { noteTarget } from '../http/request.ts';
import type { Plane } from '../plane.ts';
import { removeTags } from './delete.ts';
import { baseOf, parseName, tagged, verbKey } from './name.ts';
import { findNamed, findNamedTags, notFound, resolveTemplate } from './resolve.ts';
import { recordTemplate } from './sync.ts';
import { insertOwner, type TemplateRow } from './table.ts';

/**
 * Lets `tags` name the build that `ref` names; what they named before they name no more. Answers the row of `ref`. Throws
 * `not_found`, and `forbidden` for a template that is all teams'.
 */
export async function assignTags(
  plane: Plane,
  teamId: string,
  ref: string,
  tags: readonly string[],
): Promise<TemplateRow> {
  noteTarget(ref);
  const { id, name } = requireOwn(await resolveTemplate(plane, teamId, ref));
  const busy = `template ${baseOf(name)} is being changed`;
  return plane.templateVerbs.after(verbKey(teamId, name), `tag ${id} ${tags.join(' ')}`, busy, async () => {
    const source = await findNamed(plane, teamId, parseName(id));
    if (source === undefined) throw notFound(ref);
    for (const tag of new Set(tags)) {
      const tagId = tagged(baseOf(id), tag);
      if (tagId === id) continue;
      await insertOwner(plane.db, tagId, teamId);
      noteTarget(tagId);
      const made = await plane.host.tagTemplate(id, tagId, tagged(baseOf(name), tag));
      const more = { created_at: new Date(), source_sandbox_id: source.source_sandbox_id };
      await throughOutage(() => recordTemplate(plane, made, teamId, null, more));
    }
    return source;
  });
}

/** What has one of the tags loses it, and a build without any is gone. Throws `invalid_request` for the default tag. */
export async function unassignTags(
  plane: Plane,
  teamId: string,
  ref: string,
  tags: readonly string[],
): Promise<void> {
  noteTarget(ref);
  if (tags.includes(DEFAULT_TAG))
    throw new ThawError('invalid_request', `tag '${DEFAULT_TAG}' cannot be removed`);
  const rows = await findNamedTags(plane, teamId, parseName(ref));
  if (rows[0] === undefined) throw notFound(ref);
  requireOwn(rows[0]);
  const wanted = tags.map((tag) => tagged(baseOf(rows[0]!.id), tag));
  const ids = rows.map(({ id }) => id).filter((id) => wanted.includes(id));
  for (const id of ids) noteTarget(id);
  if (ids.length === 0) throw new ThawError('not_found', `template '${ref}' has no such tag`);
  await removeTags(plane, teamId, rows[0].name, ids);
}

function requireOwn(row: TemplateRow): TemplateRow {
  if (row.type === 'base')
    throw new ThawError('forbidden', `${row.name} is a base template, whose tags cannot be changed`);
  return row;
}
