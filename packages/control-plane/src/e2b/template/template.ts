/** Templates as clients of the E2B API see them: one with all its tags, where rows are one tag each. */
import { SANDBOX_LIMITS } from '@thaw/api';
import { baseOf, namespaceOf, tagOf } from '../../template/name.ts';
import type { Spawns, TemplateRow } from '../../template/table.ts';
import { ENVD_VERSION } from '../sandbox/schema.ts';
import type { E2bTemplate, TemplateTag, TemplateWithBuilds } from './schema.ts';

/** Clients read builds' ids as UUIDs, also of a build that is not known. */
const NO_BUILD = '00000000-0000-0000-0000-000000000000';

/** All tags of one template, newest first; there is at least one. */
export type Tagged = [TemplateRow, ...TemplateRow[]];

/** Rows by template; templates in the order in which their first row comes. */
export function byTemplate(rows: readonly TemplateRow[]): Tagged[] {
  const groups = new Map<string, Tagged>();
  for (const row of rows) {
    const id = baseOf(row.id);
    const group = groups.get(id);
    if (group) group.push(row);
    else groups.set(id, [row]);
  }
  return [...groups.values()];
}

/** `namespace/alias`, and `alias` alone of base templates; undefined for one that has none. */
export function fullName({ id, name, team_id }: TemplateRow): string | undefined {
  if (baseOf(name) === baseOf(id)) return team_id === null ? id : undefined;
  return team_id === null ? name : `${namespaceOf(team_id)}/${baseOf(name)}`;
}

/** What the template's default tag says, or else its newest. */
function chief(rows: Tagged): TemplateRow {
  return rows.find(({ id }) => baseOf(id) === id) ?? rows[0];
}

export function buildIdOf(row: TemplateRow): string {
  return row.build_id ?? NO_BUILD;
}

export function toTag(row: TemplateRow): TemplateTag {
  return { tag: tagOf(row.id), buildID: buildIdOf(row), createdAt: row.created_at.toISOString() };
}

export function toE2bTemplate(rows: Tagged, spawns: Spawns): E2bTemplate {
  const row = chief(rows);
  return {
    ...sharedOf(rows, spawns),
    ...sizeOf(row),
    buildID: buildIdOf(row),
    createdBy: null,
    buildCount: new Set(rows.map(buildIdOf)).size,
    buildStatus: statusOf(row),
  };
}

export function toTemplateWithBuilds(rows: Tagged, spawns: Spawns): TemplateWithBuilds {
  const builds = [...new Map(rows.map((row) => [buildIdOf(row), row])).values()];
  return {
    ...sharedOf(rows, spawns),
    builds: builds.map((row) => {
      const createdAt = row.created_at.toISOString();
      return {
        ...sizeOf(row),
        buildID: buildIdOf(row),
        status: statusOf(row),
        ...{ createdAt, updatedAt: createdAt, finishedAt: createdAt },
      };
    }),
  };
}

function sharedOf(rows: Tagged, { count, last }: Spawns) {
  const [newest] = rows;
  const name = fullName(newest);
  return {
    templateID: baseOf(newest.id),
    public: newest.team_id === null,
    aliases: name === undefined ? [] : [baseOf(newest.name)],
    names: name === undefined ? [] : [name],
    createdAt: rows.at(-1)!.created_at.toISOString(),
    updatedAt: newest.created_at.toISOString(),
    lastSpawnedAt: last?.toISOString() ?? null,
    spawnCount: count,
  };
}

/** Of a base template the size that a sandbox has where the caller says nothing. */
function sizeOf({ vcpus, memory_mb, disk_mb, type }: TemplateRow) {
  return {
    cpuCount: vcpus ?? SANDBOX_LIMITS.vcpus.default,
    memoryMB: memory_mb ?? SANDBOX_LIMITS.memoryMb.default,
    diskSizeMB: type === 'base' ? Math.max(disk_mb, SANDBOX_LIMITS.diskMb.default) : disk_mb,
    envdVersion: ENVD_VERSION,
  };
}

function statusOf({ error_reason }: TemplateRow): 'ready' | 'error' {
  return error_reason === null ? 'ready' : 'error';
}
