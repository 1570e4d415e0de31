/** Sandboxes of the E2B API. */
import { z } from 'zod';
import type { App } from '../../http/app.ts';
import { NO_CONTENT } from '../../http/openapi.ts';
import type { Plane } from '../../plane.ts';
import { destroySandbox } from '../../sandbox/destroy.ts';
import { requireListed, toDetail } from './sandbox.ts';
import { SandboxDetail } from './schema.ts';

const Params = z.object({ id: z.string() });

export function sandboxRoutes(app: App, plane: Plane): void {
  app.get('/sandboxes/:id', {
    schema: { params: Params, response: { 200: SandboxDetail } },
    handler: async (request) =>
      toDetail(plane, await requireListed(plane, request.teamId, request.params.id)),
  });
  app.delete('/sandboxes/:id', {
    schema: { params: Params, response: { 204: NO_CONTENT } },
    handler: async (request, reply) => {
      await requireListed(plane, request.teamId, request.params.id);
      await destroySandbox(plane, request.teamId, request.params.id);
      return reply.code(204).send();
    },
  });
}
