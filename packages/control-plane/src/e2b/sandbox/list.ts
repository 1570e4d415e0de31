/** Lists of the E2B API, by the time of the last start. */
import { Metadata, type SandboxStatus, ThawError } from '@thaw/api';
import { z } from 'zod';
import { invalid } from '../../http/errors.ts';
import type { Plane } from '../../plane.ts';
import { listByStart, type SandboxRow } from '../../sandbox/table.ts';
import { namespaceOf, parseName } from '../../template/name.ts';
import { E2bPage } from '../page.ts';
import { startOf } from './sandbox.ts';

const STATUSES: Record<'running' | 'paused', readonly SandboxStatus[]> = {
  running: ['running', 'resuming', 'snapshotting'],
  paused: ['pausing', 'paused'],
};

/** One string with commas, or the parameter several times. */
const States = z
  .union([z.string(), z.array(z.string())])
  .transform((given) => [given].flat().flatMap((list) => list.split(',')))
  .pipe(z.array(z.enum(['running', 'paused'])));

export const ListQuery = E2bPage.extend({
  state: States.optional(),
  metadata: z.string().max(65_536).optional(),
  startedAfter: z.iso
    .datetime({ offset: true })
    .transform((time) => new Date(time))
    .optional(),
  template: z.string().max(256).optional(),
  order: z.enum(['asc', 'desc']).default('desc'),
});
export type ListQuery = z.output<typeof ListQuery>;

export async function list(
  plane: Plane,
  teamId: string,
  query: ListQuery,
): Promise<{ rows: SandboxRow[]; nextToken: string | undefined }> {
  const { limit, order, startedAfter } = query;
  const states = query.state ?? ['running', 'paused'];
  const template = query.template === undefined ? undefined : templateOf(teamId, query.template);
  if (template === null) return { rows: [], nextToken: undefined };
  const filter = {
    status: states.flatMap((state) => STATUSES[state]),
    metadata: query.metadata === undefined ? undefined : metadataOf(query.metadata),
    ...{ order, startedAfter, template },
  };
  const rows = await listByStart(plane.db, teamId, filter, limit + 1, readToken(query.nextToken));
  const last = rows.length > limit ? rows[limit - 1] : undefined;
  return { rows: rows.slice(0, limit), nextToken: last && tokenOf(last) };
}

/** What rows name it by; null for one that nothing can be made of. */
function templateOf(teamId: string, text: string): string | null {
  const { namespace, base, tag } = parseName(text);
  if (tag !== undefined)
    throw new ThawError('invalid_request', 'template: a template, not one of its tags, is filtered by');
  return namespace !== undefined && namespace !== namespaceOf(teamId) ? null : base;
}

/**
 * Clients encode each key and value, then the pairs as a form, then the query: one of the three is undone by now.
 * Pairs that were encoded once only are read just as well.
 */
function metadataOf(text: string): Metadata {
  try {
    const pairs = decodeURIComponent(text)
      .split('&')
      .filter((pair) => pair !== '')
      .map((pair) => {
        const [key = '', ...value] = pair.split('=');
        return [decodeURIComponent(key), decodeURIComponent(value.join('='))] as const;
      });
    const parsed = Metadata.safeParse(Object.fromEntries(pairs));
    if (parsed.success) return parsed.data;
    throw invalid(parsed.error.issues, 'metadata');
  } catch (error) {
    if (error instanceof ThawError) throw error;
    throw new ThawError('invalid_request', 'metadata: not pairs of keys and values', { cause: error });
  }
}

function tokenOf(row: SandboxRow): string {
  return Buffer.from(`${startOf(row).toISOString()} ${row.id}`).toString('base64url');
}

function readToken(token: string | undefined): { startedAt: Date; id: string } | undefined {
  if (token === undefined) return undefined;
  const [time = '', id = ''] = Buffer.from(token, 'base64url').toString('utf8').split(' ');
  const startedAt = new Date(time);
  if (!/^[a-z0-9]+$/.test(id) || Number.isNaN(startedAt.getTime()))
    throw new ThawError('invalid_request', 'nextToken: not a token of this list');
  return { startedAt, id };
}
