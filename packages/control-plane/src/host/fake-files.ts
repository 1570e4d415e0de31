/** The fake agent's files: kept in memory, by sandbox and path; folders are those that were made, and any above a file. */
import { EventEmitter, on } from 'node:events';
import path from 'node:path';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import { ThawError } from '@thaw/api';
import {
  FileEntrySchema,
  type HostAgentService,
  toConnectError,
  type WatchDirResponseSchema,
} from '@thaw/api/rpc';

type Service = ServiceImpl<typeof HostAgentService>;
type Watched = MessageInitShape<typeof WatchDirResponseSchema>;

/** `enter` counts a call and fails it when it is told to; it throws when the sandbox does not run. */
type Enter = (rpc: keyof Service, sandboxId: string) => Promise<void>;

const missing = (what: string) => toConnectError(new ThawError('not_found', `path '${what}' does not exist`));

export function fakeFiles(files: Map<string, Buffer>, enter: Enter, watching: (more: number) => void) {
  const folders = new Set<string>();
  const changes = new EventEmitter();
  const key = ({ sandboxId, path: name }: { sandboxId: string; path: string }) => `${sandboxId}:${name}`;
  const entry = (at: string) => {
    const content = files.get(at);
    const isFolder =
      folders.has(at) || [...files.keys(), ...folders].some((name) => name.startsWith(`${at}/`));
    if (!content && !isFolder) throw missing(at.slice(at.indexOf(':') + 1));
    return create(FileEntrySchema, {
      name: path.basename(at),
      type: content ? 'file' : 'directory',
      path: at.slice(at.indexOf(':') + 1),
      size: BigInt(content?.length ?? 4096),
      mode: content ? 0o644 : 0o755,
      permissions: content ? '-rw-r--r--' : 'drwxr-xr-x',
      owner: 'root',
      group: 'root',
      modifiedAtUnixMs: 1_700_000_000_123n,
    });
  };
  const store = (at: string, content: Buffer) => {
    files.set(at, content);
    changes.emit('change', 'write', at);
  };

  const content = {
    writeFile: async (request) => {
      await enter('writeFile', request.sandboxId);
      store(key(request), Buffer.from(request.content));
      return {};
    },
    readFile: async (request) => {
      await enter('readFile', request.sandboxId);
      const found = files.get(key(request));
      if (!found) throw missing(request.path);
      return { content: found };
    },
    writeFileStream: async (parts) => {
      let at = '';
      let complete = false;
      const chunks: Uint8Array[] = [];
      for await (const { content } of parts) {
        if (content.case === 'meta') {
          await enter('writeFileStream', content.value.sandboxId);
          at = key(content.value);
        } else if (content.case === 'chunk') chunks.push(content.value);
        else if (content.case === 'complete') complete = content.value;
      }
      if (!complete) throw toConnectError(new ThawError('invalid_request', 'the upload broke off'));
      store(at, Buffer.concat(chunks));
      return {};
    },
    readFileStream: async function* (request) {
      await enter('readFileStream', request.sandboxId);
      const found = files.get(key(request));
      if (!found) throw missing(request.path);
      for (let at = 0; at < found.length; at += 65_536) {
        // A file that names a fault breaks after its first chunk.
        if (at > 0 && request.path.endsWith('.broken')) throw new Error('the guest is gone');
        yield { chunk: found.subarray(at, at + 65_536) };
      }
    },
  } satisfies Partial<Service>;

  const tree = {
    statFile: async (request) => {
      await enter('statFile', request.sandboxId);
      return { entry: entry(key(request)) };
    },
    listDir: async (request) => {
      await enter('listDir', request.sandboxId);
      const root = `${key(request).replace(/\/$/, '')}/`;
      const names = [...files.keys(), ...folders].filter((name) => name.startsWith(root));
      const within = (name: string) => name.slice(root.length).split('/').length <= (request.depth || 1);
      return { entries: names.filter(within).sort().map(entry) };
    },
    makeDir: async (request) => {
      await enter('makeDir', request.sandboxId);
      if (folders.has(key(request))) throw toConnectError(new ThawError('already_exists', 'it is there'));
      folders.add(key(request));
      changes.emit('change', 'create', key(request));
      return { entry: entry(key(request)) };
    },
    moveFile: async ({ sandboxId, source, destination }) => {
      await enter('moveFile', sandboxId);
      const found = files.get(`${sandboxId}:${source}`);
      if (!found) throw missing(source);
      files.delete(`${sandboxId}:${source}`);
      store(`${sandboxId}:${destination}`, found);
      return { entry: entry(`${sandboxId}:${destination}`) };
    },
    removeFile: async (request) => {
      await enter('removeFile', request.sandboxId);
      for (const name of [...files.keys(), ...folders]) {
        if (name !== key(request) && !name.startsWith(`${key(request)}/`)) continue;
        files.delete(name);
        folders.delete(name);
        changes.emit('change', 'remove', name);
      }
      return {};
    },
    watchDir: async function* (request, { signal }): AsyncGenerator<Watched> {
      await enter('watchDir', request.sandboxId);
      entry(key(request));
      const events = on(changes, 'change', { signal });
      watching(1);
      signal.addEventListener('abort', () => watching(-1));
      yield { event: { case: 'start', value: {} } };
      for await (const [type, name] of events as AsyncIterable<[string, string]>) {
        if (!name.startsWith(`${key(request)}/`)) continue;
        yield { event: { case: 'change', value: { type, name: name.slice(key(request).length + 1) } } };
      }
    },
  } satisfies Partial<Service>;
  return { ...content, ...tree };
}
