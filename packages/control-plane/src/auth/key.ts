/** API keys: made here, shown once, kept only as a hash. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { API_KEY, DEFAULT_TEAM, newApiKey, ThawError } from '@thaw/api';
import { recordByItself } from '../audit/table.ts';
import type { Database } from '../db/connect.ts';
import { type ApiKeyRow, countKeys, findKeyByHash, insertKey } from './table.ts';

const PREFIX_LENGTH = 8;

export const hashKey = (key: string): string => createHash('sha256').update(key).digest('hex');

/** Who sent a request. */
export interface Caller {
  keyId: string;
  teamId: string;
  admin: boolean;
  /** May administrate all teams. */
  operator: boolean;
  /** The key's first characters. */
  prefix: string;
}

export type VerifyKey = (key: string) => Promise<Caller | undefined>;

/** The columns of a new key that its text decides. */
export function keyColumns(key: string): { id: string; hash: string; prefix: string } {
  const hash = hashKey(key);
  return { id: `key_${hash.slice(0, 16)}`, hash, prefix: key.slice(0, PREFIX_LENGTH) };
}

/**
 * Makes `key` valid for the team, as one that may do everything, of the default team as an operator's; a key that already
 * is valid stays as it is. For whoever is on the host: nobody is asked. Throws `forbidden` if it was revoked.
 */
export async function addKey(db: Database, key: string, teamId = DEFAULT_TEAM): Promise<void> {
  if (!API_KEY.test(key)) throw new ThawError('invalid_request', 'a key is e2b_ and 40 hexadecimal digits');
  const columns = keyColumns(key);
  const rights = { admin: true, operator: teamId === DEFAULT_TEAM };
  if (await insertKey(db, { ...columns, ...rights, team_id: teamId, name: 'operator' }))
    await recordByItself(db, { verb: 'addKey', target: columns.id, team_id: teamId });
  const row = await findKeyByHash(db, columns.hash);
  if (row?.revoked_at) throw new ThawError('forbidden', 'the API key was revoked');
}

/** The first key, or undefined if there is one already: that one cannot be shown again. */
export async function makeFirstKey(db: Database): Promise<string | undefined> {
  if ((await countKeys(db, DEFAULT_TEAM)) > 0) return undefined;
  const key = newApiKey();
  await addKey(db, key);
  return key;
}

/** Tells whose key it is. What was found is trusted for a while, so that a request costs no query for it. */
export class Keyring {
  readonly #db: Database;
  readonly #cacheMs: number;
  readonly #known = new Map<string, { caller: Caller; until: number }>();

  constructor(db: Database, cacheMs = 10_000) {
    this.#db = db;
    this.#cacheMs = cacheMs;
  }

  verify: VerifyKey = async (key) => {
    if (!API_KEY.test(key)) return undefined;
    const hash = hashKey(key);
    const cached = this.#known.get(hash);
    if (cached && cached.until > performance.now()) return cached.caller;
    this.#known.delete(hash);
    const row = await findKeyByHash(this.#db, hash);
    if (!row || row.revoked_at !== null || !timingSafeEqual(Buffer.from(row.hash), Buffer.from(hash)))
      return undefined;
    const caller = callerOf(row);
    this.#known.set(hash, { caller, until: performance.now() + this.#cacheMs });
    return caller;
  };

  /** A key that was revoked here is refused from now on; other control planes notice when they ask again. */
  forget(keyId: string): void {
    for (const [hash, { caller }] of this.#known) if (caller.keyId === keyId) this.#known.delete(hash);
  }
}

function callerOf({ id, team_id, admin, operator, prefix }: ApiKeyRow): Caller {
  return { keyId: id, teamId: team_id, admin, operator, prefix };
}
