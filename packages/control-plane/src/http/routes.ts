/** Every route there is. The server answers them, and the description tells of them. */
import { auditRoutes } from '../audit/routes.ts';
import { type KeyOptions, ownKeyRoutes } from '../auth/routes.ts';
import { e2bRoutes } from '../e2b/routes.ts';
import { eventRoutes } from '../event/routes.ts';
import { type ExecOptions, execRoutes } from '../exec/routes.ts';
import { fileRoutes } from '../file/routes.ts';
import { metricsRoutes } from '../metrics/routes.ts';
import type { Plane } from '../plane.ts';
import { sandboxRoutes } from '../sandbox/routes.ts';
import { teamRoutes } from '../team/routes.ts';
import { templateRoutes } from '../template/routes.ts';
import type { App } from './app.ts';
import { docsRoutes } from './docs.ts';
import { healthRoutes } from './health.ts';

export function addRoutes(app: App, plane: Plane, options: ExecOptions & KeyOptions): void {
  auditRoutes(app, plane);
  healthRoutes(app, plane);
  docsRoutes(app);
  sandboxRoutes(app, plane);
  execRoutes(app, plane, options);
  fileRoutes(app, plane);
  templateRoutes(app, plane);
  ownKeyRoutes(app, plane, options);
  teamRoutes(app, plane, options);
  eventRoutes(app, plane);
  metricsRoutes(app, plane);
  e2bRoutes(app, plane);
}
