/** The description without a running control plane: the routes are there, and nothing behind them. */
import { pino } from 'pino';
import type { Plane } from '../plane.ts';
import { buildApp } from './app.ts';
import { addRoutes } from './routes.ts';

/** OpenAPI 3.1 as YAML. Throws if a route says too little about itself. */
export async function describeApi(): Promise<string> {
  const app = await buildApp(pino({ level: 'silent' }), async () => undefined);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => app.close());
  // Routes ask their plane for something only when they are called.
  addRoutes(app, {} as Plane, {
    verifyKey: async () => undefined,
    forgetKey: () => {},
    checkOrigin: () => {},
    pingEveryMs: 1,
  });
  await app.ready();
  for (const [path, methods] of Object.entries(app.swagger().paths ?? {})) {
    for (const [method, operation] of Object.entries(methods ?? {})) {
      const { summary, operationId } = operation as { summary?: string; operationId?: string };
      if (summary && operationId) continue;
      throw new Error(`${method.toUpperCase()} ${path}: its schema needs a summary and an operationId`);
    }
  }
  return app.swagger({ yaml: true });
}
