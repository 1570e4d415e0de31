/**
 * The E2B API: what the official SDKs speak, beside `/v1`. Its routes only parse, call the same verbs as `/v1`, and
 * serialise. A file of routes exports one function `(app, plane) => void` and is named here.
 *
 * - Errors are thrown as anywhere else; the server writes them in this API's shape (errors.ts).
 * - An answer without a body is 204. Where it must be another status, `reply.header('Content-Length', 0)`: clients parse
 *   every other 2xx as JSON.
 * - Unknown fields of bodies and queries are ignored: every version of the SDKs sends its own.
 * - Path parameters are matched first and decoded then: `team%2Fname%3Atag` is one.
 */
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { App } from '../http/app.ts';
import type { Plane } from '../plane.ts';
import { forkRoutes } from './sandbox/fork.ts';
import { logsRoutes } from './sandbox/logs.ts';
import { metricsRoutes } from './sandbox/metrics.ts';
import { sandboxRoutes } from './sandbox/routes.ts';
import { networkRoutes } from './sandbox/update-network.ts';
import { snapshotRoutes } from './snapshot/routes.ts';
import { teamRoutes } from './team/routes.ts';
import { templateRoutes } from './template/routes.ts';
import { unsupportedRoutes } from './unsupported.ts';

export function e2bRoutes(app: App, plane: Plane): void {
  app.register(async (plain) => {
    const scope = plain.withTypeProvider<ZodTypeProvider>() as unknown as App;
    // The description is that of /v1.
    scope.addHook('onRoute', (route) => {
      route.schema = { ...route.schema, hide: true };
    });
    sandboxRoutes(scope, plane);
    forkRoutes(scope, plane);
    metricsRoutes(scope, plane);
    logsRoutes(scope, plane);
    networkRoutes(scope, plane);
    snapshotRoutes(scope, plane);
    templateRoutes(scope, plane);
    teamRoutes(scope, plane);
    unsupportedRoutes(scope);
  });
}
