import { z } from 'zod';
import { isBuildId } from './build-id.ts';
import { MAX_OFFSET } from './number.ts';

/** Bytes of content that one checksum covers. */
export const CHUNK_BYTES = 1 << 20;

const count = z.number().int().min(0).max(MAX_OFFSET);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'not a SHA-256 in hex');
const buildId = z.string().refine(isBuildId, 'not the id of a build');
const fact = z.string().min(1).max(1024);

/** A file that is read whole and checked whole. */
const wholeFile = z.strictObject({ size_bytes: count, sha256 });

/**
 * Memory or disk. `chunks` are [index, SHA-256] of every 1 MiB chunk of the file that holds stored blocks, ascending; the
 * digest is over those blocks alone, in file order.
 */
const image = z.strictObject({
  /** What the header covers. */
  size_bytes: count,
  stored_bytes: count,
  generation: count,
  /** The build whose header this one was laid over. */
  parent: buildId.nullable(),
  header: wholeFile,
  file_bytes: count,
  chunks: z.array(z.tuple([count, sha256])).refine(isAscending, 'chunks are not ascending'),
});

/** What a host must match to restore the memory and device state. */
const machine = z.strictObject({
  vmm: fact,
  vmm_version: fact,
  machine_type: fact,
  cpu_model: fact,
  accelerator: fact,
  /** The host's TSC rate; null if it was not known. */
  tsc_khz: count.nullable(),
  /** Identities (hashes or versions) of what ran: kept for the record. */
  kernel: fact,
  guest_agent: fact,
  preload: fact.nullable(),
  vcpus: count,
});

const body = z.strictObject({
  format: z.literal(1),
  id: buildId,
  created_at: z.iso.datetime(),
  /** The template that the sandbox came from, or the name of the base image. */
  template: fact.nullable(),
  /** The guest did not confirm that it had frozen its processes. */
  guest_unresponsive: z.boolean(),
  machine: machine.nullable(),
  vmstate: wholeFile.nullable(),
  memory: image.nullable(),
  disk: image,
});

/** Memory, device state and the machine they need come together or not at all. */
export const manifestSchema = body.refine(
  ({ machine, vmstate, memory }) =>
    (machine === null) === (vmstate === null) && (vmstate === null) === (memory === null),
  'machine, vmstate and memory must be all there or all null',
);

export type Manifest = z.infer<typeof manifestSchema>;
export type ManifestImage = Manifest['disk'];
export type Machine = NonNullable<Manifest['machine']>;
export type WholeFile = NonNullable<Manifest['vmstate']>;

function isAscending(chunks: readonly [number, string][]): boolean {
  return chunks.every(([index], at) => at === 0 || index > chunks[at - 1]![0]);
}
