export { type BuildId, isBuildId, ZERO_FILL } from './build-id.ts';
export { type CreateHeader, createHeader, type Layout, storedBytes } from './create.ts';
export { SnapshotFormatError } from './format-error.ts';
export { buildsOf, checkHeader, type Entry, type Header, ownEntries } from './header.ts';
export { type Found, lookup } from './lookup.ts';
export {
  CHUNK_BYTES,
  type Machine,
  type Manifest,
  type ManifestImage,
  manifestSchema,
  type WholeFile,
} from './manifest.ts';
export { MANIFEST_BYTES_MAX, parseManifest, serialiseManifest } from './manifest-text.ts';
export { merge } from './merge.ts';
export { type HostMachine, mismatches, TSC_TOLERANCE_PPM } from './mismatch.ts';
export { normalise } from './normalise.ts';
export { MAX_OFFSET } from './number.ts';
export { parseHeader } from './parse.ts';
export { parseRuns, RUN_BYTES, type Run, serialiseRuns } from './runs.ts';
export { serialiseHeader } from './serialise.ts';
