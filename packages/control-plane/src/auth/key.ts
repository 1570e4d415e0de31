/** API keys: made here, shown once, kept only as a hash. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { API_KEY, newApiKey, ThawError } from '@thaw/api';
import type { Database } from '../db/connect.ts';
import { countKeys, findKey, insertKey } from './table.ts';

export const DEFAULT_TEAM = 'default';

export const hashKey = (key: string): string => createHash('sha256').update(key).digest('hex');

/** Makes `key` valid for the team; a key that already is stays as it is. */
export async function addKey(db: Database, key: string, teamId = DEFAULT_TEAM): Promise<void> {
  if (!API_KEY.test(key)) throw new ThawError('invalid_request', 'a key is e2b_ and 40 hexadecimal digits');
  const hash = hashKey(key);
  await insertKey(db, { id: `key_${hash.slice(0, 16)}`, team_id: teamId, hash, prefix: key.slice(0, 8) });
}

/** The team's first key, or undefined if it has one already: that one cannot be shown again. */
export async function makeFirstKey(db: Database, teamId = DEFAULT_TEAM): Promise<string | undefined> {
  if ((await countKeys(db, teamId)) > 0) return undefined;
  const key = newApiKey();
  await addKey(db, key, teamId);
  return key;
}

/** The team a key belongs to. What was found is trusted for `cacheMs`, so that a request costs no query for it. */
export function keyVerifier(db: Database, cacheMs = 10_000): (key: string) => Promise<string | undefined> {
  const known = new Map<string, { teamId: string; until: number }>();
  return async (key) => {
    if (!API_KEY.test(key)) return undefined;
    const hash = hashKey(key);
    const cached = known.get(hash);
    if (cached && cached.until > performance.now()) return cached.teamId;
    known.delete(hash);
    const row = await findKey(db, hash);
    if (!row || !timingSafeEqual(Buffer.from(row.hash), Buffer.from(hash))) return undefined;
    known.set(hash, { teamId: row.team_id, until: performance.now() + cacheMs });
    return row.team_id;
  };
}
