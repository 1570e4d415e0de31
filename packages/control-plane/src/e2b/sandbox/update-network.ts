/** Changes what a sandbox may reach, as a whole: what is left out is as if it had never been said. */
import { z } from 'zod';
import type { App } from '../../http/app.ts';
import { NO_CONTENT } from '../../http/openapi.ts';
import type { Plane } from '../../plane.ts';
import { updateSandbox } from '../../sandbox/update.ts';
import { EgressWish, toPolicy } from './network.ts';
import { requireListed } from './sandbox.ts';

const UpdateNetwork = EgressWish.extend({ allow_internet_access: z.boolean().nullish() });

export function networkRoutes(app: App, plane: Plane): void {
  app.put('/sandboxes/:id/network', {
    schema: {
      params: z.object({ id: z.string() }),
      body: UpdateNetwork,
      response: { 204: NO_CONTENT },
    },
    handler: async (request, reply) => {
      const { id } = await requireListed(plane, request.teamId, request.params.id);
      const { allow_internet_access: allowInternet, ...wish } = request.body;
      const network = toPolicy(wish, allowInternet);
      await updateSandbox(plane, request.teamId, id, { network }, { allow_internet: allowInternet ?? null });
      return reply.code(204).send();
    },
  });
}
