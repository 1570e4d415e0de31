import { Readable } from 'node:stream';
import { GuestPath, GuestUser, ReadFile } from '@thaw/api';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { App } from '../http/app.ts';
import { NO_CONTENT, raw } from '../http/openapi.ts';
import type { Plane } from '../plane.ts';
import { SandboxParams } from '../sandbox/routes.ts';
import { readBuffered, readStream } from './read.ts';
import { writeBuffered, writeStream } from './write.ts';

/** As `uploadParts` takes it. */
const UploadForm = z.object({
  path: GuestPath,
  user: GuestUser.optional(),
  file: z.file().describe('The bytes, sent as a file with a name'),
});

type Write = (plane: Plane, teamId: string, id: string, request: FastifyRequest) => Promise<void>;

export function fileRoutes(app: App, plane: Plane): void {
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
          discardRest(request, reply);
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

/** After a refusal the client may still be sending: read on a little, so that it sees the answer, then hang up. */
function discardRest(request: FastifyRequest, reply: FastifyReply): void {
  if (request.raw.complete) return;
  reply.header('Connection', 'close');
  request.raw.unpipe();
  request.raw.resume();
}
