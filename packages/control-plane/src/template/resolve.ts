/** Finds what a caller calls a template. */
import { ThawError } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { namespaceOf, parseName, type TemplateName, tagged } from './name.ts';
import { syncTemplates } from './sync.ts';
import { findTags, findTemplate, type TemplateRow } from './table.ts';

/**
 * The row that sandboxes are made of, by `[namespace/](alias|id)[:tag]`; snapshot ids are of that form too. Trimmed and
 * lower-cased first. Throws `invalid_request` and `not_found`.
 */
export async function resolveTemplate(plane: Plane, teamId: string, ref: string): Promise<TemplateRow> {
  const name = parseName(ref);
  const known = await findNamed(plane, teamId, name);
  if (known) return known;
  // The host may have got it a moment ago.
  await syncTemplates(plane);
  const found = await findNamed(plane, teamId, name);
  if (!found) throw notFound(ref);
  return found;
}

/** Base templates, which are all teams', have no namespace. */
export async function findNamed(
  plane: Plane,
  teamId: string,
  { namespace, base, tag }: TemplateName,
): Promise<TemplateRow | undefined> {
  if (namespace !== undefined && namespace !== namespaceOf(teamId)) return undefined;
  const row = await findTemplate(plane.db, teamId, tagged(base, tag));
  return namespace !== undefined && row?.team_id === null ? undefined : row;
}

/** All tags of the template, newest first; the tag in `name` does not matter. */
export async function findNamedTags(
  plane: Plane,
  teamId: string,
  { namespace, base }: TemplateName,
): Promise<TemplateRow[]> {
  if (namespace !== undefined && namespace !== namespaceOf(teamId)) return [];
  const rows = await findTags(plane.db, teamId, base);
  return namespace !== undefined && rows[0]?.team_id === null ? [] : rows;
}

export function notFound(ref: string): ThawError {
  return new ThawError('not_found', `template '${ref.slice(0, 200)}' not found`);
}
