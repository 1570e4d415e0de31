import { type BuildId, encodeBuildId } from './build-id.ts';
import { checkHeader, type Header } from './header.ts';
import { ENTRY, ENTRY_BYTES, METADATA, METADATA_BYTES, VERSION } from './layout.ts';
import { writeU64 } from './number.ts';

/** The bytes of a header. Throws `SnapshotFormatError` if it is not in normal form: nothing else is ever written. */
export function serialiseHeader(header: Header): Buffer {
  checkHeader(header);
  const bytes = Buffer.alloc(METADATA_BYTES + header.entries.length * ENTRY_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const encoded = new Map<BuildId, Buffer>();
  const writeId = (at: number, id: BuildId) => {
    const known = encoded.get(id) ?? encodeBuildId(id);
    encoded.set(id, known);
    bytes.set(known, at);
  };
  writeU64(view, METADATA.version, VERSION, 'version');
  writeU64(view, METADATA.blockSize, header.blockSize, 'block size');
  writeU64(view, METADATA.size, header.size, 'size');
  writeU64(view, METADATA.generation, header.generation, 'generation');
  writeId(METADATA.build, header.build);
  writeId(METADATA.base, header.base);
  let at = METADATA_BYTES;
  for (const entry of header.entries) {
    writeU64(view, at + ENTRY.offset, entry.offset, 'offset');
    writeU64(view, at + ENTRY.length, entry.length, 'length');
    writeId(at + ENTRY.build, entry.build);
    writeU64(view, at + ENTRY.storageOffset, entry.storageOffset, 'storage offset');
    at += ENTRY_BYTES;
  }
  return bytes;
}
