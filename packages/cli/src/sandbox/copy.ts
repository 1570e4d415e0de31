/** Copies one file into or out of a sandbox: `ID:PATH` on one side, a local path or `-` on the other. */
import { createReadStream, createWriteStream } from 'node:fs';
import { rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ThawError } from '@thaw/api';
import { type Context, Interrupted } from '../context.ts';
import { bytes, printJson, write } from '../print.ts';

export interface CopyOptions {
  user?: string;
}

type Side =
  | { kind: 'guest'; id: string; path: string }
  | { kind: 'local'; path: string }
  | { kind: 'standard' };

export async function copy(context: Context, from: string, to: string, options: CopyOptions): Promise<void> {
  const [source, target] = [parseSide(from), parseSide(to)];
  if ((source.kind === 'guest') === (target.kind === 'guest')) {
    throw new ThawError('invalid_request', 'one side is SANDBOX:PATH, the other a local path or -');
  }
  const work = () =>
    source.kind === 'guest'
      ? download(context, source, target, options)
      : upload(context, source, target, options);
  try {
    const size = await context.progress.step(`copying ${from} to ${to}`, work);
    if (context.json && target.kind !== 'standard') await printJson({ from, to, size_bytes: size });
    else if (target.kind !== 'standard' && process.stderr.isTTY) context.progress.say(bytes(size));
  } catch (error) {
    throw context.signal.aborted ? new Interrupted('interrupted; nothing was copied') : error;
  }
}

function parseSide(text: string): Side {
  const match = /^(sb[a-z0-9]{20}):(.+)$/s.exec(text);
  if (match) return { kind: 'guest', id: match[1]!, path: match[2]! };
  return text === '-' ? { kind: 'standard' } : { kind: 'local', path: text };
}

async function upload(context: Context, source: Side, target: Side, options: CopyOptions): Promise<number> {
  if (source.kind === 'guest' || target.kind !== 'guest') throw new TypeError('not an upload');
  let to = target.path;
  if (source.kind === 'local') {
    if ((await stat(source.path)).isDirectory()) throw folderError(source.path);
    if (to.endsWith('/')) to += path.basename(source.path);
  }
  const input = source.kind === 'local' ? createReadStream(source.path) : process.stdin;
  const count = counter();
  await context
    .thaw()
    .sandboxes.writeFile(target.id, to, count.of(input), { ...options, signal: context.signal });
  return count.bytes();
}

async function download(context: Context, source: Side, target: Side, options: CopyOptions): Promise<number> {
  if (source.kind !== 'guest' || target.kind === 'guest') throw new TypeError('not a download');
  const { signal } = context;
  const content = await context.thaw().sandboxes.readFile(source.id, source.path, { ...options, signal });
  const count = counter();
  const input = count.of(Readable.from(content));
  if (target.kind === 'standard') {
    await pipeline(input, process.stdout, { signal, end: false });
    // The last bytes may still wait for a slow reader, and would end with the process.
    await write(process.stdout, '');
    return count.bytes();
  }
  const place = (await isFolder(target.path))
    ? path.join(target.path, path.basename(source.path))
    : target.path;
  // Written beside its place and renamed: a broken copy is never taken for the file.
  await using undo = new AsyncDisposableStack();
  const partial = path.join(path.dirname(place), `.${path.basename(place)}.${process.pid}.part`);
  undo.defer(() => rm(partial, { force: true }));
  await pipeline(input, createWriteStream(partial, { flags: 'wx' }), { signal });
  await rename(partial, place);
  return count.bytes();
}

/** Counts the bytes that pass. */
function counter() {
  let total = 0;
  return {
    bytes: () => total,
    async *of(input: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
      for await (const chunk of input) {
        total += chunk.length;
        yield chunk;
      }
    },
  };
}

async function isFolder(file: string): Promise<boolean> {
  return (await stat(file).catch(() => undefined))?.isDirectory() ?? file.endsWith('/');
}

function folderError(folder: string): ThawError {
  return new ThawError(
    'invalid_request',
    `${folder} is a folder: send it with tar through \`thaw sandbox exec -i\``,
  );
}
