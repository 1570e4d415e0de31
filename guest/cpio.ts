// The archive format the kernel unpacks as its first root ("newc", Documentation/driver-api/early-userspace/buffer-format.rst).

export type Entry =
  | { path: string; kind: 'dir'; mode: number }
  | { path: string; kind: 'file'; mode: number; content: Buffer }
  | { path: string; kind: 'char'; mode: number; major: number; minor: number };

const typeBits = { dir: 0o040000, file: 0o100000, char: 0o020000 } as const;

/** Uncompressed; the same entries in the same order give the same bytes: time stamps and owners are 0. */
export function encodeCpio(entries: readonly Entry[]): Buffer {
  const parts = entries.map((entry, index) => encodeEntry(entry, index + 1));
  parts.push(encodeRecord('TRAILER!!!', [0, 0, 0, 0, 1], Buffer.alloc(0), [0, 0]));
  const archive = Buffer.concat(parts);
  return Buffer.concat([archive, Buffer.alloc((512 - (archive.length % 512)) % 512)]);
}

function encodeEntry(entry: Entry, inode: number): Buffer {
  const content = entry.kind === 'file' ? entry.content : Buffer.alloc(0);
  const device: [number, number] = entry.kind === 'char' ? [entry.major, entry.minor] : [0, 0];
  const links = entry.kind === 'dir' ? 2 : 1;
  return encodeRecord(entry.path, [inode, typeBits[entry.kind] | entry.mode, 0, 0, links], content, device);
}

/** Fields: inode, mode, uid, gid, links. Header and content are each padded to 4 bytes. */
function encodeRecord(path: string, fields: number[], content: Buffer, device: [number, number]): Buffer {
  const name = Buffer.from(`${path}\0`);
  const numbers = [...fields, 0, content.length, 0, 0, ...device, name.length, 0];
  const header = `070701${numbers.map((value) => value.toString(16).toUpperCase().padStart(8, '0')).join('')}`;
  return Buffer.concat([pad(Buffer.concat([Buffer.from(header), name])), pad(content)]);
}

const pad = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
