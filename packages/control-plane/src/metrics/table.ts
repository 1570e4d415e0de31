import type { SandboxStatus } from '@thaw/api';
import type { Database } from '../db/connect.ts';

/** Of all teams. */
export async function countSandboxes(db: Database): Promise<Map<SandboxStatus, number>> {
  const rows = await db
    .selectFrom('sandboxes')
    .select(['status', (select) => select.fn.countAll().as('count')])
    .groupBy('status')
    .execute();
  return new Map(rows.map(({ status, count }) => [status, Number(count)]));
}
