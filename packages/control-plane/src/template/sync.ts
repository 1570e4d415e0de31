/** Template rows follow the host: its heads are the truth. */
import { DEFAULT_TEAM, type TemplateType } from '@thaw/api';
import type { Template } from '@thaw/api/rpc';
import { recordBuild } from '../build/record.ts';
import { isTaken } from '../db/connect.ts';
import type { Plane } from '../plane.ts';
import { countTeams } from '../team/table.ts';
import { verbKey } from './name.ts';
import {
  listAllTemplates,
  listOwners,
  markTemplate,
  pruneOwners,
  removeTemplate,
  type TemplateRow,
  upsertTemplate,
} from './table.ts';

/**
 * Upserts what the host has and forgets what it has no more. Names with a verb under way are left alone. What nobody is
 * known to own is the only team's, and where there are several, nobody's: it is not shown to whom it may not belong.
 */
export async function syncTemplates(plane: Plane): Promise<void> {
  const before = await listAllTemplates(plane.db);
  const listed = await plane.host.templates();
  // After the host's list: whoever made what is in it had become its owner before.
  const owners = await listOwners(plane.db);
  const alone = (await countTeams(plane.db)) === 1;
  const byId = new Map(before.map((row) => [row.id, row]));
  for (const template of listed) {
    const row = byId.get(template.id);
    if (template.errorReason !== undefined) {
      // What the host can't read now it may be able to read again.
      if (row && row.error_reason !== template.errorReason)
        await markTemplate(plane.db, row.id, template.errorReason);
      continue;
    }
    const owner = row?.team_id ?? owners.get(template.id) ?? (alone ? DEFAULT_TEAM : undefined);
    if (template.type !== 'base' && owner === undefined) {
      plane.log.warn({ template: template.id }, 'the host has a template of which nobody knows whose it is');
      continue;
    }
    const teamId = template.type === 'base' ? null : owner!;
    if (plane.templateVerbs.has(verbKey(teamId, template.name))) continue;
    if (row && isSame(row, template)) continue;
    try {
      await recordTemplate(plane, template, teamId, row?.build_id ?? null).catch((error) =>
        recordByItsId(plane, template, teamId, error),
      );
    } catch (error) {
      plane.log.warn({ err: error, template: template.id }, 'a template was not recorded');
    }
  }
  const present = new Set(listed.map((template) => template.id));
  for (const row of before) {
    if (present.has(row.id) || plane.templateVerbs.has(verbKey(row.team_id, row.name))) continue;
    await removeTemplate(plane.db, row.id, row.build_id);
    plane.log.info({ template: row.id, name: row.name }, 'the host has this template no more');
  }
  await pruneOwners(plane.db, [...present]);
}

/**
 * Two heads of one name: a verb was cut off before this one's row was written, and the name given anew. It goes by its
 * id then, so that nobody has lost it and somebody can delete it.
 */
async function recordByItsId(
  plane: Plane,
  template: Template,
  teamId: string | null,
  error: unknown,
): Promise<void> {
  if (!isTaken(error)) throw error;
  await recordTemplate(plane, { ...template, name: template.id }, teamId, null);
  plane.log.warn({ template: template.id, name: template.name }, 'a template lost its name to a later one');
}

function isSame(row: TemplateRow, template: Template): boolean {
  return (
    (row.name === template.name || row.name === template.id) &&
    row.type === template.type &&
    row.vcpus === (template.vcpus || null) &&
    row.memory_mb === (template.memoryMb || null) &&
    row.disk_mb === template.diskMb &&
    row.build_id === (template.build?.id ?? null) &&
    row.error_reason === null
  );
}

export async function recordTemplate(
  plane: Plane,
  template: Template,
  teamId: string | null,
  parentBuildId: string | null,
  more: { created_at?: Date; source_sandbox_id?: string | null } = {},
): Promise<void> {
  const buildId = await recordBuild(plane.db, template.build, parentBuildId);
  await upsertTemplate(plane.db, {
    id: template.id,
    team_id: teamId,
    name: template.name,
    type: template.type as TemplateType,
    vcpus: template.vcpus || null,
    memory_mb: template.memoryMb || null,
    disk_mb: template.diskMb,
    build_id: buildId,
    error_reason: null,
    created_at: new Date(Number(template.createdAtUnix) * 1000 || Date.now()),
    ...more,
  });
}
