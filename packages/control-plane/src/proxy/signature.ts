/**
 * Signed URLs of the guest agent's `/files`: `v1_` and the SHA-256 of `{path}:{operation}:{user}:{token}`, with
 * `:{expiration}` behind if there is one, in standard base64 without padding. Compatible with the E2B SDKs.
 */
import { hash, timingSafeEqual } from 'node:crypto';

export interface Signed {
  signature: string;
  /** What it is of, around the token. */
  before: string;
  after: string;
  /** Unix seconds; undefined: it never expires. */
  expiresAt: number | undefined;
}

const PATH = '/files';
const OPERATIONS: Record<string, string> = { GET: 'read', HEAD: 'read', POST: 'write' };
/** Of a whole target; a path in a guest has at most 4096 bytes, each three characters when it is encoded. */
const TARGET_CHARACTERS_MAX = 16_384;

/** Undefined where a request is not one with a signature. `target` is in origin form. */
export function signedOf(method: string, target: string): Signed | undefined {
  const mark = target.indexOf('?');
  const operation = OPERATIONS[method];
  if (mark < 0 || target.slice(0, mark) !== PATH || target.length > TARGET_CHARACTERS_MAX) return undefined;
  const query = new URLSearchParams(target.slice(mark + 1));
  const signature = query.get('signature');
  if (operation === undefined || signature === null || !/^v1_[A-Za-z0-9+/]{43}$/.test(signature))
    return undefined;
  const expiration = query.get('signature_expiration');
  if (expiration !== null && !/^\d{1,15}$/.test(expiration)) return undefined;
  return {
    signature,
    before: `${query.get('path') ?? ''}:${operation}:${query.get('username') ?? ''}:`,
    after: expiration === null ? '' : `:${expiration}`,
    expiresAt: expiration === null ? undefined : Number(expiration),
  };
}

/** Whether it was made with `token`, be it over or not. */
export function isSignedWith({ signature, before, after }: Signed, token: string): boolean {
  const digest = hash('sha256', before + token + after, 'base64').replace(/=+$/, '');
  return timingSafeEqual(Buffer.from(`v1_${digest}`), Buffer.from(signature));
}

export function isOver({ expiresAt }: Signed, nowMs = Date.now()): boolean {
  return expiresAt !== undefined && expiresAt * 1000 < nowMs;
}

export function isSameToken(given: string | string[] | undefined, token: string): boolean {
  if (typeof given !== 'string') return false;
  const [a, b] = [Buffer.from(given), Buffer.from(token)];
  return a.length === b.length && timingSafeEqual(a, b);
}
