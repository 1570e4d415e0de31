import { SnapshotFormatError } from './format-error.ts';
import { readU64, writeU64 } from './number.ts';

/** Blocks that changed since the parent, in bytes: stored in this build, or all zero now and stored nowhere. */
export interface Run {
  readonly offset: number;
  readonly length: number;
  readonly kind: 'stored' | 'zero';
}

export const RUN_BYTES = 24;

const KINDS = { stored: 1, zero: 2 } as const;

/** Reads a runs file: 24-byte records `u64 offset, u64 length, u64 kind`, ascending. Throws `SnapshotFormatError`. */
export function parseRuns(bytes: Uint8Array): Run[] {
  if (bytes.length % RUN_BYTES !== 0) {
    throw new SnapshotFormatError(`a runs file can't be ${bytes.length} bytes long: it is truncated`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const runs: Run[] = [];
  for (let at = 0; at < bytes.length; at += RUN_BYTES) {
    const offset = readU64(view, at, 'a run offset');
    const length = readU64(view, at + 8, 'a run length');
    const kind = readU64(view, at + 16, 'a run kind');
    if (kind !== KINDS.stored && kind !== KINDS.zero)
      throw new SnapshotFormatError(`run kind ${kind} is unknown`);
    runs.push({ offset, length, kind: kind === KINDS.stored ? 'stored' : 'zero' });
  }
  return runs;
}

export function serialiseRuns(runs: readonly Run[]): Buffer {
  const bytes = Buffer.alloc(runs.length * RUN_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (const [index, run] of runs.entries()) {
    writeU64(view, index * RUN_BYTES, run.offset, 'a run offset');
    writeU64(view, index * RUN_BYTES + 8, run.length, 'a run length');
    writeU64(view, index * RUN_BYTES + 16, KINDS[run.kind], 'a run kind');
  }
  return bytes;
}
