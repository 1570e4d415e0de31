import { type Insertable, type Selectable, sql } from 'kysely';
import type { Database } from '../db/connect.ts';
import type { EventTable } from '../db/schema.ts';
import type { Cursor } from '../sandbox/table.ts';

export type EventRow = Selectable<EventTable>;

const FOREIGN_KEY_VIOLATION = '23503';

/** Of a sandbox whose row is gone nothing is written, and nobody is told: its history went with it. */
export async function insertEvent(db: Database, event: Insertable<EventTable>): Promise<void> {
  try {
    await db
      .insertInto('events')
      .columns(['id', 'sandbox_id', 'verb', 'actor', 'outcome', 'message', 'ms', 'timings_ms', 'request_id'])
      .expression((select) =>
        select
          .selectFrom('sandboxes')
          .select([
            sql<string>`${event.id}::text`.as('event_id'),
            'sandboxes.id',
            sql<string>`${event.verb}::text`.as('verb'),
            sql<string>`${event.actor}::text`.as('actor'),
            sql<string>`${event.outcome}::text`.as('outcome'),
            sql<string | null>`${event.message}::text`.as('message'),
            sql<number>`${event.ms}::double precision`.as('ms'),
            sql<string>`${event.timings_ms}::jsonb`.as('timings_ms'),
            sql<string | null>`${event.request_id}::text`.as('request_id'),
          ])
          .where('sandboxes.id', '=', event.sandbox_id),
      )
      .execute();
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === FOREIGN_KEY_VIOLATION)) throw error;
  }
}

/** Newest first. */
export function listEvents(
  db: Database,
  sandboxId: string,
  limit: number,
  after?: Cursor,
): Promise<EventRow[]> {
  let query = db.selectFrom('events').selectAll().where('sandbox_id', '=', sandboxId);
  if (after) query = query.where(sql<boolean>`(created_at, id) < (${after.createdAt}, ${after.id})`);
  return query.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit).execute();
}
