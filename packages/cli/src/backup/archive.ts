/**
 * One file that holds a backup: an ordinary tar archive, sparse files sparse. Its first member, of fixed size, holds the
 * checksum of all that follows it; it is written last.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { type FileHandle, open, readdir } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { ThawError } from '@thaw/api';
import { z } from 'zod';

const HEAD_NAME = 'thaw-backup.json';
const BLOCK_BYTES = 512;
const HEAD_BYTES = 1024;
/** Where what the checksum covers begins. */
const BODY = BLOCK_BYTES + HEAD_BYTES;
const READ_BYTES = 1 << 20;

const Head = z.object({
  format: z.literal(1),
  created_at: z.string(),
  /** Bytes that follow this member, and their SHA-256. */
  bytes: z.number(),
  sha256: z.string(),
});
export type Head = z.infer<typeof Head>;

const FILES_DIFFER = 1;
const isOfLinks = (line: string) => line === '' || line.endsWith(': file changed as we read it');

/**
 * Whether tar, in the C locale, has archived files that never change: others make and remove links to images and builds, which
 * it takes for a change.
 */
export function isWhole(code: number | null, said: string): boolean {
  return code === 0 || (code === FILES_DIFFER && said.split('\n').every(isOfLinks));
}

/** Writes the entries of `folder` into `file`, which must not exist, and syncs it. */
export async function writeArchive(file: string, folder: string, signal: AbortSignal): Promise<Head> {
  await using out = await open(file, 'wx', 0o600);
  const options = ['--create', '--sparse', '--format=posix', '--sort=name', '--numeric-owner'];
  const names = (await readdir(folder)).toSorted();
  const tar = spawn('/usr/bin/tar', [...options, '--directory', folder, '--file', '-', '--', ...names], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
    signal,
  });
  const ended = once(tar, 'close') as Promise<[number | null]>;
  const said = text(tar.stderr);
  ended.catch(() => {});
  said.catch(() => {});
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of tar.stdout as AsyncIterable<Buffer>) {
    hash.update(chunk);
    await writeAll(out, chunk, BODY + bytes);
    bytes += chunk.length;
  }
  const code = await exitOf(ended, signal);
  if (!isWhole(code, await said))
    throw new ThawError('internal', `tar failed: ${(await said).trim() || `exit code ${code}`}`);
  const head: Head = { format: 1, created_at: new Date().toISOString(), bytes, sha256: hash.digest('hex') };
  const content = Buffer.alloc(HEAD_BYTES, ' ');
  content.write(`${JSON.stringify(head)}\n`);
  content.write('\n', HEAD_BYTES - 1);
  await writeAll(out, Buffer.concat([memberHeader(HEAD_NAME, HEAD_BYTES), content]), 0);
  await out.sync();
  return head;
}

/** Reads the whole file. Throws `invalid_request` unless it is a whole backup. */
export async function verifyArchive(file: string, signal: AbortSignal): Promise<Head> {
  await using input = await open(file, 'r');
  const start = Buffer.alloc(BODY);
  const { bytesRead } = await input.read(start, 0, BODY, 0);
  const isOurs = bytesRead === BODY && start.subarray(0, HEAD_NAME.length).toString() === HEAD_NAME;
  if (!isOurs) throw new ThawError('invalid_request', `${file} is no backup of Thaw`);
  const head = readHead(file, start.subarray(BLOCK_BYTES).toString());
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  let at = BODY;
  for (;;) {
    signal.throwIfAborted();
    const read = (await input.read(buffer, 0, READ_BYTES, at)).bytesRead;
    if (read === 0) break;
    hash.update(buffer.subarray(0, read));
    at += read;
  }
  if (at - BODY !== head.bytes)
    throw new ThawError('invalid_request', `${file} has ${at} bytes instead of ${head.bytes + BODY}`);
  if (hash.digest('hex') !== head.sha256)
    throw new ThawError('invalid_request', `${file} is damaged: it does not match its checksum`);
  return head;
}

/** Unpacks an archive that was verified into the empty folder `into`. */
export async function extractArchive(file: string, into: string, signal: AbortSignal): Promise<void> {
  const options = ['--extract', '--preserve-permissions', '--numeric-owner', `--exclude=${HEAD_NAME}`];
  const tar = spawn('/usr/bin/tar', [...options, '--directory', into, '--file', file], {
    stdio: ['ignore', 'ignore', 'pipe'],
    signal,
  });
  const said = text(tar.stderr);
  said.catch(() => {});
  const code = await exitOf(once(tar, 'close') as Promise<[number | null]>, signal);
  if (code !== 0)
    throw new ThawError('internal', `tar failed: ${(await said).trim() || `exit code ${code}`}`);
}

/** An abort shows as an error of the child's. */
async function exitOf(ended: Promise<[number | null]>, signal: AbortSignal): Promise<number | null> {
  try {
    return (await ended)[0];
  } finally {
    signal.throwIfAborted();
  }
}

function readHead(file: string, content: string): Head {
  try {
    return Head.parse(JSON.parse(content));
  } catch (cause) {
    throw new ThawError('invalid_request', `${file} is damaged, or of another version of Thaw`, { cause });
  }
}

/** The header of a file in a tar archive (POSIX.1-1988, "ustar"). */
function memberHeader(name: string, size: number): Buffer {
  const header = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, at: number, length: number) =>
    header.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at);
  header.write(name, 0);
  octal(0o600, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size, 124, 12);
  octal(Math.floor(Date.now() / 1000), 136, 12);
  header.write('        0', 148);
  header.write('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}

async function writeAll(to: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; )
    done += (await to.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
}
