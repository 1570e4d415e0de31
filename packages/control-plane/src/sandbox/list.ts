import { type ListSandboxes, type Sandbox, ThawError } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { toSandbox } from './sandbox.ts';
import { type Cursor, listSandboxes } from './table.ts';

export interface Listed<T> {
  items: T[];
  /** Absent on the last page. */
  nextToken?: string;
}

export async function listOf(plane: Plane, teamId: string, wish: ListSandboxes): Promise<Listed<Sandbox>> {
  const { limit, next_token, ...filter } = wish;
  const rows = await listSandboxes(plane.db, teamId, filter, limit + 1, readToken(next_token));
  return page(rows, limit, toSandbox);
}

/** Cuts `rows`, one more than `limit` if there are that many, into a page and the token of the next one. */
export function page<Row extends { id: string; created_at: Date }, T>(
  rows: Row[],
  limit: number,
  tell: (row: Row) => T,
): Listed<T> {
  const items = rows.slice(0, limit).map((row) => tell(row));
  const last = rows[limit - 1];
  if (rows.length <= limit || !last) return { items };
  return {
    items,
    nextToken: Buffer.from(`${last.created_at.toISOString()} ${last.id}`).toString('base64url'),
  };
}

export function readToken(token: string | undefined): Cursor | undefined {
  if (token === undefined) return undefined;
  const [time, id] = Buffer.from(token, 'base64url').toString('utf8').split(' ');
  const createdAt = new Date(time ?? '');
  if (!id || !/^[a-z0-9:._-]+$/.test(id) || Number.isNaN(createdAt.getTime())) {
    throw new ThawError('invalid_request', 'next_token: not a token of this list');
  }
  return { createdAt, id };
}
