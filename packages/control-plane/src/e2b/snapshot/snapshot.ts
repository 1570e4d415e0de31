/** Snapshots as clients of the E2B API see them: one for each tag of a template that was made of a sandbox. */
import { TEMPLATE_ID, ThawError } from '@thaw/api';
import { z } from 'zod';
import type { Plane } from '../../plane.ts';
import { type Listed, page, readToken } from '../../sandbox/list.ts';
import { freeze } from '../../template/create.ts';
import { baseOf, namespaceOf, parseName, readName, tagged, tagOf } from '../../template/name.ts';
import { findNamedTags, notFound } from '../../template/resolve.ts';
import { listTemplates, type TemplateRow } from '../../template/table.ts';
import { fullName } from '../template/template.ts';

export const SnapshotInfo = z.object({ snapshotID: z.string(), names: z.array(z.string()) });
export type SnapshotInfo = z.infer<typeof SnapshotInfo>;

export interface SnapshotFilter {
  sandboxID?: string | undefined;
  name?: string | undefined;
}

/** A name that is there gets one more build: its tag moves to it. Waits for what else is being done to the template. */
export async function snapshotSandbox(
  plane: Plane,
  teamId: string,
  sandboxId: string,
  text: string | undefined,
): Promise<SnapshotInfo> {
  const name = text === undefined ? {} : { name: await rowName(plane, teamId, text) };
  const { row } = await freeze(plane, teamId, { sandbox_id: sandboxId, ...name }, true, 'after');
  return toSnapshot(row);
}

/** Newest first. A name without a tag means all of them. */
export async function listSnapshots(
  plane: Plane,
  teamId: string,
  { sandboxID, name }: SnapshotFilter,
  limit: number,
  token?: string,
): Promise<Listed<SnapshotInfo>> {
  const ids = name === undefined ? undefined : await idsOf(plane, teamId, name);
  const filter = { type: 'snapshot', sourceSandboxId: sandboxID, ids } as const;
  const rows = await listTemplates(plane.db, teamId, filter, limit + 1, readToken(token));
  return page(rows, limit, toSnapshot);
}

/** The id can be given to a create. */
function toSnapshot(row: TemplateRow): SnapshotInfo {
  const name = fullName(row);
  const tag = tagOf(row.id);
  if (name === undefined) return { snapshotID: `${baseOf(row.id)}:${tag}`, names: [] };
  return { snapshotID: `${name}:${tag}`, names: [`${name}:${tag}`] };
}

/** A template that is there goes by its name, whatever it is called here. */
async function rowName(plane: Plane, teamId: string, text: string): Promise<string> {
  const name = parseName(text);
  if (name.namespace !== undefined && name.namespace !== namespaceOf(teamId))
    throw new ThawError('invalid_request', `name: '${name.namespace}' is not the namespace of this team`);
  const [known] = await findNamedTags(plane, teamId, name);
  if (known === undefined && TEMPLATE_ID.test(name.base)) throw notFound(text);
  return tagged(known === undefined ? name.base : baseOf(known.name), name.tag);
}

/** Of the rows that a filter's name means; what can't be a name means none. */
async function idsOf(plane: Plane, teamId: string, text: string): Promise<string[]> {
  const name = readName(text);
  if (name === undefined) return [];
  const ids = (await findNamedTags(plane, teamId, name)).map(({ id }) => id);
  return name.tag === undefined ? ids : ids.filter((id) => tagOf(id) === name.tag);
}
