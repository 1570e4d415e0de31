import { Readable } from 'node:stream';
import { ReadFile } from '@thaw/api';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { App } from '../http/app.ts';
import type { Plane } from '../plane.ts';
import { SandboxParams } from '../sandbox/routes.ts';
import { readBuffered, readStream } from './read.ts';
import { writeBuffered, writeStream } from './write.ts';

type Write = (plane: Plane, teamId: string, id: string, request: FastifyRequest) => Promise<void>;

export function fileRoutes(app: App, plane: Plane): void {
  const write = (url: string, action: Write) =>
    app.post(url, {
      schema: { params: SandboxParams },
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
  write('/v1/sandboxes/:id/files/write', writeBuffered);
  write('/v1/sandboxes/:id/files/stream/write', writeStream);

  app.post('/v1/sandboxes/:id/files/read', {
    schema: { params: SandboxParams, body: ReadFile },
    handler: async (request, reply) => {
      const bytes = await readBuffered(plane, request.teamId, request.params.id, request.body);
      return reply.type('application/octet-stream').send(bytes);
    },
  });
  app.post('/v1/sandboxes/:id/files/stream/read', {
    schema: { params: SandboxParams, body: ReadFile },
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
