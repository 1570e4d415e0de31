import { SnapshotFormatError } from './format-error.ts';

/** A build's UUID as lower-case text with hyphens. */
export type BuildId = string;

/** The nil UUID stands for blocks that are all zero and stored nowhere. */
export const ZERO_FILL: BuildId = '00000000-0000-0000-0000-000000000000';

const TEXT = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** True for the text of a UUID that can name a build: lower case, not nil. */
export function isBuildId(text: string): boolean {
  return TEXT.test(text) && text !== ZERO_FILL;
}

/** The 16 bytes of a UUID, in the order of its text. */
export function encodeBuildId(id: BuildId): Buffer {
  if (!TEXT.test(id)) throw new SnapshotFormatError(`"${id}" is not a lower-case UUID`);
  return Buffer.from(id.replaceAll('-', ''), 'hex');
}

export function decodeBuildId(bytes: Buffer): BuildId {
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`;
}
