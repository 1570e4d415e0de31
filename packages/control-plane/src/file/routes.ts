import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import {
  FileEntry,
  GuestPath,
  GuestUser,
  ListDir,
  MakeDir,
  MoveFile,
  ReadFile,
  RemoveFile,
  StatFile,
  ThawError,
  WatchDir,
} from '@thaw/api';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { App } from '../http/app.ts';
import { NO_CONTENT, raw } from '../http/openapi.ts';
import type { Plane } from '../plane.ts';
import { SandboxParams } from '../sandbox/routes.ts';
import { listDir, makeDir, moveFile, removeFile, statFile } from './folders.ts';
import { readBuffered, readStream } from './read.ts';
import { watchDir } from './watch.ts';
import { writeBuffered, writeStream } from './write.ts';

/** As `uploadParts` takes it. */
const UploadForm = z.object({
  path: GuestPath,
  user: GuestUser.optional(),
  file: z.file().describe('The bytes, sent as a file with a name'),
});

/** Lines that wait for a slow reader, before the guest does. */
const WATCH_LINES = 64;

type Write = (plane: Plane, teamId: string, id: string, request: FastifyRequest) => Promise<void>;

export function fileRoutes(app: App, plane: Plane): void {
  contentRoutes(app, plane);
  folderRoutes(app, plane);
}

function contentRoutes(app: App, plane: Plane): void {
  const write = (url: string, action: Write, about: { operationId: string; summary: string }) =>
    app.post(url, {
      config: { describe: { form: UploadForm } },
      schema: { ...about, params: SandboxParams, response: { 204: NO_CONTENT } },
      // A stream is not held in memory: no limit but its own.
      bodyLimit: Number.MAX_SAFE_INTEGER,
      handler: async (request, reply) => {
        try {
          await action(plane, request.teamId, request.params.id, request);
        } catch (error) {
          await discardRest(request, reply);
          throw error;
        }
        return reply.code(204).send();
      },
    });
  write('/v1/sandboxes/:id/files/write', writeBuffered, {
    operationId: 'writeFile',
    summary: 'Write a file of at most 100 MiB; nothing is written before all of it is here',
  });
  write('/v1/sandboxes/:id/files/stream/write', writeStream, {
    operationId: 'writeFileStream',
    summary: 'Write a file of any size as it comes; `path` stands before `file`',
  });

  app.post('/v1/sandboxes/:id/files/read', {
    schema: {
      operationId: 'readFile',
      summary: 'Read a file of at most 100 MiB',
      params: SandboxParams,
      body: ReadFile,
      response: { 200: raw('application/octet-stream', 'The bytes') },
    },
    handler: async (request, reply) => {
      const bytes = await readBuffered(plane, request.teamId, request.params.id, request.body);
      return reply.type('application/octet-stream').send(bytes);
    },
  });
  app.post('/v1/sandboxes/:id/files/stream/read', {
    schema: {
      operationId: 'readFileStream',
      summary: 'Read a file of any size; a transfer that breaks cuts the connection',
      params: SandboxParams,
      body: ReadFile,
      response: { 200: raw('application/octet-stream', 'The bytes') },
    },
    handler: async (request, reply) => {
      const chunks = await readStream(plane, request.teamId, request.params.id, request.body);
      return reply.type('application/octet-stream').send(Readable.from(chunks, { objectMode: false }));
    },
  });
}

function folderRoutes(app: App, plane: Plane): void {
  const params = SandboxParams;
  const closing = new AbortController();
  app.addHook('preClose', async () => {
    closing.abort(new ThawError('unavailable', 'the control plane is shutting down'));
  });
  app.post('/v1/sandboxes/:id/files/stat', {
    schema: {
      operationId: 'statFile',
      summary: 'What a path is',
      params,
      body: StatFile,
      response: { 200: FileEntry },
    },
    handler: ({ teamId, params: { id }, body }) => statFile(plane, teamId, id, body),
  });
  app.post('/v1/sandboxes/:id/files/list', {
    schema: {
      operationId: 'listDir',
      summary: 'What is in a folder; each folder comes before what is in it',
      params,
      body: ListDir,
      response: { 200: z.array(FileEntry) },
    },
    handler: ({ teamId, params: { id }, body }) => listDir(plane, teamId, id, body),
  });
  app.post('/v1/sandboxes/:id/files/mkdir', {
    schema: {
      operationId: 'makeDir',
      summary: 'Make a folder, and those above it that are missing',
      params,
      body: MakeDir,
      response: { 201: FileEntry },
    },
    handler: async ({ teamId, params: { id }, body }, reply) =>
      reply.code(201).send(await makeDir(plane, teamId, id, body)),
  });
  app.post('/v1/sandboxes/:id/files/move', {
    schema: {
      operationId: 'moveFile',
      summary: 'Move or rename a file or a folder',
      params,
      body: MoveFile,
      response: { 200: FileEntry },
    },
    handler: ({ teamId, params: { id }, body }) => moveFile(plane, teamId, id, body),
  });
  app.post('/v1/sandboxes/:id/files/remove', {
    schema: {
      operationId: 'removeFile',
      summary: 'Remove a file, or a folder with all that is in it; a path that does not exist is fine',
      params,
      body: RemoveFile,
      response: { 204: NO_CONTENT },
    },
    handler: async ({ teamId, params: { id }, body }, reply) => {
      await removeFile(plane, teamId, id, body);
      return reply.code(204).send();
    },
  });
  app.post('/v1/sandboxes/:id/files/watch', {
    schema: {
      operationId: 'watchDir',
      summary:
        'What changes in a folder, as it happens: a line of JSON for each change, until the client leaves',
      params,
      body: WatchDir,
      response: { 200: raw('application/x-ndjson', 'A WatchMessage in each line') },
    },
    handler: async ({ teamId, params: { id }, body }, reply) => {
      const lines = await watchDir(plane, teamId, id, body, AbortSignal.any([gone(reply), closing.signal]));
      return reply.type('application/x-ndjson').send(Readable.from(lines, { highWaterMark: WATCH_LINES }));
    },
  });
}

/** Aborts when the answer is through, or its reader is. */
function gone(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once('close', () => controller.abort());
  return controller.signal;
}

/** How much of a refused upload is read, so that a client that sends before it listens sees the answer. */
const DISCARD_BYTES_MAX = 4 * 1024 * 1024;
const DISCARD_MS_MAX = 1000;
/** How long after the answer. */
const LINGER_MS_MAX = 5000;

/** After a refusal the client may still be sending: read on a little, then answer and hang up. */
async function discardRest(request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const { raw } = request;
  raw.unpipe();
  if (!raw.complete) {
    let bytes = 0;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, DISCARD_MS_MAX);
      const done = () => {
        clearTimeout(timer);
        resolve();
      };
      raw.once('end', done).once('close', done).once('error', done);
      raw.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > DISCARD_BYTES_MAX) done();
      });
      raw.resume();
    });
  }
  if (raw.complete) return;
  reply.header('Connection', 'close');
  linger(raw.socket);
}

/** A close with bytes unread is a reset, which takes the answer with it: reading goes on until the client has hung up. */
function linger(socket: Socket): void {
  socket.destroySoon = () => {
    socket.end();
    const timer = setTimeout(() => socket.destroy(), LINGER_MS_MAX);
    timer.unref();
    socket.once('close', () => clearTimeout(timer));
  };
}
