import { z } from 'zod';
import { pingDatabase } from '../db/connect.ts';
import type { Plane } from '../plane.ts';
import type { App } from './app.ts';

const Healthy = z.object({ status: z.literal('ok') }).describe('It answers.');

/** `/healthz`: this process answers. `/readyz`: database and host answer too. */
export function healthRoutes(app: App, plane: Plane): void {
  for (const url of ['/healthz', '/health']) {
    app.get(url, {
      config: { open: true },
      schema: {
        operationId: url === '/healthz' ? 'getHealth' : 'getHealthAlias',
        summary: 'Whether this process answers',
        response: { 200: Healthy },
      },
      handler: async () => ({ status: 'ok' as const }),
    });
  }
  app.get('/readyz', {
    config: { open: true },
    schema: {
      operationId: 'getReadiness',
      summary: 'Whether database and host answer too',
      response: { 200: Healthy },
    },
    handler: async () => {
      await pingDatabase(plane.db);
      await plane.host.facts();
      return { status: 'ok' as const };
    },
  });
}
