import { pingDatabase } from '../db/connect.ts';
import type { Plane } from '../plane.ts';
import type { App } from './app.ts';

/** `/healthz`: this process answers. `/readyz`: database and host answer too. */
export function healthRoutes(app: App, plane: Plane): void {
  for (const url of ['/healthz', '/health']) {
    app.get(url, { config: { open: true }, handler: async () => ({ status: 'ok' }) });
  }
  app.get('/readyz', {
    config: { open: true },
    handler: async () => {
      await pingDatabase(plane.db);
      await plane.host.facts();
      return { status: 'ok' };
    },
  });
}
