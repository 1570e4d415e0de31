import { hash } from 'node:crypto';
import { z } from 'zod';
import { SnapshotFormatError } from './format-error.ts';
import { type Manifest, manifestSchema } from './manifest.ts';

/** No manifest is larger, in bytes: a disk of many TiB fits. */
export const MANIFEST_BYTES_MAX = 256 << 20;

const SEAL = /\n\{"sha256":"([0-9a-f]{64})"\}\n$/;
const SEAL_BYTES = '\n{"sha256":""}\n'.length + 64;

/** Two lines of JSON: the manifest, and the SHA-256 of that line. */
export function serialiseManifest(manifest: Manifest): string {
  const line = JSON.stringify(check(manifest));
  return `${line}\n{"sha256":"${hash('sha256', line)}"}\n`;
}

/** Throws `SnapshotFormatError` for a manifest that is cut, changed, of another format or inconsistent. */
export function parseManifest(text: string): Manifest {
  if (text.length > MANIFEST_BYTES_MAX) throw new SnapshotFormatError('the manifest is too large');
  const seal = SEAL.exec(text.slice(-SEAL_BYTES));
  if (seal === null) throw new SnapshotFormatError('the manifest is truncated');
  const line = text.slice(0, -SEAL_BYTES);
  if (hash('sha256', line) !== seal[1])
    throw new SnapshotFormatError('the manifest does not match its checksum');
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new SnapshotFormatError('the manifest is not JSON', { cause });
  }
  return check(value);
}

function check(value: unknown): Manifest {
  const parsed = manifestSchema.safeParse(value);
  if (!parsed.success) {
    throw new SnapshotFormatError(`the manifest is invalid: ${z.prettifyError(parsed.error)}`, {
      cause: parsed.error,
    });
  }
  return parsed.data;
}
