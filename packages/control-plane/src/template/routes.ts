import { CreateSnapshot, CreateSnapshotQuery, ListTemplates, TemplateInfo } from '@thaw/api';
import { z } from 'zod';
import type { App } from '../http/app.ts';
import { NO_CONTENT } from '../http/openapi.ts';
import type { Plane } from '../plane.ts';
import { page, readToken } from '../sandbox/list.ts';
import { createSnapshot } from './create.ts';
import { deleteSnapshot } from './delete.ts';
import { listTemplates } from './table.ts';
import { toTemplate } from './template.ts';

export function templateRoutes(app: App, plane: Plane): void {
  app.post('/v1/snapshots', {
    schema: {
      operationId: 'createSnapshot',
      summary: 'Freeze a sandbox into a template; the sandbox goes on',
      body: CreateSnapshot,
      querystring: CreateSnapshotQuery,
      response: { 201: TemplateInfo },
    },
    handler: async (request, reply) => {
      const overwrite = request.query.overwrite === 'true';
      return reply.code(201).send(await createSnapshot(plane, request.teamId, request.body, overwrite));
    },
  });
  app.get('/v1/snapshots', {
    schema: {
      operationId: 'listTemplates',
      summary: 'List templates, newest first',
      querystring: ListTemplates,
      response: { 200: z.array(TemplateInfo) },
    },
    handler: async (request, reply) => {
      const { type, limit, next_token } = request.query;
      const rows = await listTemplates(plane.db, request.teamId, { type }, limit + 1, readToken(next_token));
      const { items, nextToken } = page(rows, limit, toTemplate);
      if (nextToken) reply.header('X-Next-Token', nextToken);
      return items;
    },
  });
  app.delete('/v1/snapshots/:name', {
    schema: {
      operationId: 'deleteSnapshot',
      summary: 'Delete a template; sandboxes made of it go on',
      params: z.object({ name: z.string().toLowerCase().describe('The name or id of a template') }),
      response: { 204: NO_CONTENT },
    },
    handler: async (request, reply) => {
      await deleteSnapshot(plane, request.teamId, request.params.name);
      return reply.code(204).send();
    },
  });
}
