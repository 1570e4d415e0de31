import { ThawError } from '@thaw/api';
import type { Database } from '../db/connect.ts';
import { claimHostRow, takeHostRow } from './table.ts';

/**
 * Two installations on one database would each take the other's sandboxes for lost ones and forget them. The first
 * one's data folder owns the rows of its host; any other is refused with `conflict`, unless it is told to take over.
 */
export async function claimHost(
  db: Database,
  hostId: string,
  identity: string,
  takeOver = false,
): Promise<void> {
  if (takeOver) return takeHostRow(db, hostId, identity);
  if ((await claimHostRow(db, hostId, identity)) === identity) return;
  throw new ThawError(
    'conflict',
    'this database belongs to another data folder of Thaw: give each its own database, or use the folder that it was made with; if that one is gone, start once with THAW_CLAIM_DATABASE=1',
  );
}
