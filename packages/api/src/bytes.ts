/**
 * Bytes inside JSON. Valid UTF-8 travels as text, anything else as base64, and `encoding` says which: a chunk that
 * ends in the middle of a character is base64, so that joining the decoded chunks always gives the original bytes.
 */
import { z } from 'zod';

export const Encoding = z.enum(['utf-8', 'base64']);
export type Encoding = z.infer<typeof Encoding>;

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text of `bytes`, or undefined if they are not UTF-8. */
export function textOf(bytes: Uint8Array): string | undefined {
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

export function encodeBytes(bytes: Uint8Array): { data: string; encoding: Encoding } {
  const text = textOf(bytes);
  if (text !== undefined) return { data: text, encoding: 'utf-8' };
  return { data: toBase64(bytes), encoding: 'base64' };
}

export function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}

export function decodeBytes(data: string, encoding: Encoding = 'utf-8'): Uint8Array {
  return Buffer.from(data, encoding === 'base64' ? 'base64' : 'utf8');
}
