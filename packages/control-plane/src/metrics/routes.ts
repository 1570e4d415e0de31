import { SANDBOX_STATUSES } from '@thaw/api';
import { operator } from '../auth/routes.ts';
import type { App } from '../http/app.ts';
import { raw } from '../http/openapi.ts';
import type { Plane } from '../plane.ts';
import { hostUp, registry, sandboxes } from './metrics.ts';
import { countSandboxes } from './table.ts';

/** For operators: the figures are of all teams, and of the host. */
export function metricsRoutes(app: App, plane: Plane): void {
  app.get('/metrics', {
    schema: {
      operationId: 'getMetrics',
      summary: "Figures of control plane and host in Prometheus' text format; for operators",
      response: { 200: raw('text/plain', 'Version 0.0.4 of the format') },
    },
    handler: async (request, reply) => {
      operator(request);
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
