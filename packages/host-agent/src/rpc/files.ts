/** The calls of HostAgentService about files. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import { ThawError } from '@thaw/api';
import type { HostAgentService, WatchDirResponseSchema } from '@thaw/api/rpc';
import type { WatchEvent } from '../guest/folders.ts';
import type { Host } from '../host.ts';
import {
  listDir,
  makeDir,
  moveFile,
  readFile,
  removeFile,
  statFile,
  watchDir,
  writeFile,
} from '../sandbox/files.ts';

/** The most that the unary file calls carry, in bytes. */
const UNARY_FILE_BYTES_MAX = 100 * 2 ** 20;

export function fileCalls(host: Host) {
  return {
    writeFile: async ({ sandboxId, path, user, content }) => {
      await writeFile(host, { sandboxId, path, user }, oneChunk(content));
      return {};
    },
    readFile: async ({ sandboxId, path, user }) => {
      const chunks: Uint8Array[] = [];
      let size = 0;
      for await (const chunk of readFile(host, { sandboxId, path, user })) {
        size += chunk.length;
        if (size > UNARY_FILE_BYTES_MAX)
          throw new ThawError('too_large', 'the file is too large: use the stream');
        chunks.push(chunk);
      }
      return { content: Buffer.concat(chunks) };
    },
    writeFileStream: async (messages) => {
      const content = messages[Symbol.asyncIterator]();
      const first = await content.next();
      if (first.done || first.value.content.case !== 'meta') {
        throw new ThawError('invalid_request', 'the first message must name the sandbox and the path');
      }
      await writeFile(host, first.value.content.value, chunksOf(content));
      return {};
    },
    readFileStream: async function* ({ sandboxId, path, user }) {
      for await (const chunk of readFile(host, { sandboxId, path, user })) yield { chunk };
    },

    statFile: async (place) => ({ entry: await statFile(host, place) }),
    listDir: async (place) => ({ entries: await listDir(host, place) }),
    makeDir: async (place) => ({ entry: await makeDir(host, place) }),
    moveFile: async ({ source, destination, sandboxId, user }) => ({
      entry: await moveFile(host, source, { sandboxId, path: destination, user }),
    }),
    removeFile: async (place) => {
      await removeFile(host, place);
      return {};
    },
    watchDir: async function* (place, context: HandlerContext) {
      for await (const event of watchDir(host, place, context.signal)) yield told(event);
    },
  } satisfies Partial<ServiceImpl<typeof HostAgentService>>;
}

function told(event: WatchEvent): MessageInitShape<typeof WatchDirResponseSchema> {
  if (event.type === 'start') return { event: { case: 'start', value: {} } };
  return { event: { case: 'change', value: { type: event.change, name: event.name } } };
}

async function* oneChunk(chunk: Uint8Array): AsyncGenerator<Uint8Array> {
  yield chunk;
}

/** The chunks of an upload. One that ends without its `complete` was broken off by the sender. */
async function* chunksOf(
  messages: AsyncIterator<{ content: { case?: string | undefined; value?: unknown } }>,
): AsyncGenerator<Uint8Array> {
  for (let next = await messages.next(); !next.done; next = await messages.next()) {
    const { content } = next.value;
    if (content.case === 'complete') return;
    if (content.case !== 'chunk')
      throw new ThawError('invalid_request', 'only chunks may follow the first message');
    yield content.value as Uint8Array;
  }
  throw new ThawError('unavailable', 'the upload was broken off');
}
