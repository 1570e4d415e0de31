/** Every route there is. The server answers them, and the description tells of them. */
import { type ExecOptions, execRoutes } from '../exec/routes.ts';
import { fileRoutes } from '../file/routes.ts';
import type { Plane } from '../plane.ts';
import { sandboxRoutes } from '../sandbox/routes.ts';
import { templateRoutes } from '../template/routes.ts';
import type { App } from './app.ts';
import { docsRoutes } from './docs.ts';
import { healthRoutes } from './health.ts';

export function addRoutes(app: App, plane: Plane, options: ExecOptions): void {
  healthRoutes(app, plane);
  docsRoutes(app);
  sandboxRoutes(app, plane);
  execRoutes(app, plane, options);
  fileRoutes(app, plane);
  templateRoutes(app, plane);
}
