import { SANDBOX_STATUSES, ThawError } from '@thaw/api';
import type { App } from '../http/app.ts';
import { raw } from '../http/openapi.ts';
import type { Plane } from '../plane.ts';
import { hostUp, registry, sandboxes } from './metrics.ts';
import { countSandboxes } from './table.ts';

/** For keys that may administrate: the figures are of all teams, and of the host. */
export function metricsRoutes(app: App, plane: Plane): void {
  app.get('/metrics', {
    schema: {
      operationId: 'getMetrics',
      summary:
        "Figures of control plane and host in Prometheus' text format; needs a key that may administrate",
      response: { 200: raw('text/plain', 'Version 0.0.4 of the format') },
    },
    handler: async (request, reply) => {
      if (!request.caller?.admin) throw new ThawError('forbidden', 'this API key may not read metrics');
      return reply.type(registry.contentType).send(await readMetrics(plane));
    },
  });
}

async function readMetrics(plane: Plane): Promise<string> {
  const [counts, host] = await Promise.all([
    countSandboxes(plane.db),
    plane.host.metrics().catch(() => undefined),
  ]);
  for (const status of SANDBOX_STATUSES) sandboxes.set({ status }, counts.get(status) ?? 0);
  hostUp.set(host === undefined ? 0 : 1);
  return `${await registry.metrics()}${host ?? ''}`;
}
