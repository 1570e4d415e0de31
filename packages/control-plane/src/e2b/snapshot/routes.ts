/** Snapshots of the E2B API. They are deleted as templates are. */
import { ThawError } from '@thaw/api';
import { z } from 'zod';
import type { App } from '../../http/app.ts';
import type { Plane } from '../../plane.ts';
import { E2bPage, tellNext } from '../page.ts';
import { requireListed } from '../sandbox/sandbox.ts';
import { listSnapshots, SnapshotInfo, snapshotSandbox } from './snapshot.ts';

const CreateBody = z.object({ name: z.string().max(300).nullish(), memory: z.boolean().nullish() }).nullish();
const Query = E2bPage.extend({ sandboxID: z.string().optional(), name: z.string().optional() });

export function snapshotRoutes(app: App, plane: Plane): void {
  app.post('/sandboxes/:id/snapshots', {
    schema: {
      params: z.object({ id: z.string() }),
      body: CreateBody,
      response: { 201: SnapshotInfo },
    },
    handler: async (request, reply) => {
      const { id } = await requireListed(plane, request.teamId, request.params.id);
      const { name, memory } = request.body ?? {};
      if (memory === false)
        throw new ThawError(
          'invalid_request',
          'memory: a snapshot has memory and disk; pause can leave memory',
        );
      return reply.code(201).send(await snapshotSandbox(plane, request.teamId, id, name ?? undefined));
    },
  });
  app.get('/snapshots', {
    schema: { querystring: Query, response: { 200: z.array(SnapshotInfo) } },
    handler: async (request, reply) => {
      const { limit, nextToken: token, ...filter } = request.query;
      const { items, nextToken } = await listSnapshots(plane, request.teamId, filter, limit, token);
      tellNext(reply, nextToken);
      return items;
    },
  });
}
