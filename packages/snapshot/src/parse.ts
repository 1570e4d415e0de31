import { type BuildId, decodeBuildId } from './build-id.ts';
import { SnapshotFormatError } from './format-error.ts';
import { checkHeader, type Entry, type Header } from './header.ts';
import { ENTRY, ENTRY_BYTES, METADATA, METADATA_BYTES, VERSION } from './layout.ts';
import { readU64 } from './number.ts';

/**
 * Reads a whole header. Accepts the normal form and nothing else; costs time and memory in proportion to `bytes`.
 * Throws `SnapshotFormatError`.
 */
export function parseHeader(bytes: Uint8Array): Header {
  if (bytes.length < METADATA_BYTES || (bytes.length - METADATA_BYTES) % ENTRY_BYTES !== 0) {
    throw new SnapshotFormatError(`a header can't be ${bytes.length} bytes long: it is truncated`);
  }
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const version = readU64(view, METADATA.version, 'version');
  if (version !== VERSION) throw new SnapshotFormatError(`header version ${version} is not supported`);
  const readId = idReader(buffer);
  const entries: Entry[] = [];
  for (let at = METADATA_BYTES; at < bytes.length; at += ENTRY_BYTES) {
    entries.push({
      offset: readU64(view, at + ENTRY.offset, 'an offset'),
      length: readU64(view, at + ENTRY.length, 'a length'),
      build: readId(at + ENTRY.build),
      storageOffset: readU64(view, at + ENTRY.storageOffset, 'a storage offset'),
    });
  }
  const header: Header = {
    size: readU64(view, METADATA.size, 'size'),
    blockSize: readU64(view, METADATA.blockSize, 'block size'),
    generation: readU64(view, METADATA.generation, 'generation'),
    build: readId(METADATA.build),
    base: readId(METADATA.base),
    entries,
  };
  checkHeader(header);
  return header;
}

/** Entries name few builds: each id's text is made once and shared. */
function idReader(buffer: Buffer): (at: number) => BuildId {
  const known = new Map<string, BuildId>();
  return (at) => {
    const key = buffer.toString('latin1', at, at + 16);
    let id = known.get(key);
    if (id === undefined) {
      id = decodeBuildId(buffer.subarray(at, at + 16));
      known.set(key, id);
    }
    return id;
  };
}
