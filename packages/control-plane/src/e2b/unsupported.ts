/**
 * Paths of the E2B API that Thaw does not serve, each with the reason: a client is told what to do instead, and never that
 * there is no such path.
 */
import { ThawError } from '@thaw/api';
import type { App } from '../http/app.ts';

const BUILDS =
  'Thaw builds no templates: make a sandbox as you want it, and a snapshot of it with the name of the template';
const VOLUMES =
  'Thaw has no volumes: files live on the disk of a sandbox, and pauses, forks and snapshots keep them';
const SECRETS = 'Thaw keeps no secrets: give them to a sandbox in its environment';

const NOT_IMPLEMENTED: [reason: string, routes: string[]][] = [
  [
    BUILDS,
    [
      'POST /templates',
      'POST /v2/templates',
      'POST /v3/templates',
      'POST /templates/:id',
      'POST /templates/:id/builds/:build',
      'POST /v2/templates/:id/builds/:build',
      'GET /templates/:id/builds/:build/status',
      'GET /templates/:id/builds/:build/logs',
      'GET /templates/:id/files/:hash',
    ],
  ],
  [
    VOLUMES,
    [
      'GET /volumes',
      'POST /volumes',
      'GET /volumes/:id',
      'DELETE /volumes/:id',
      ...['path', 'dir', 'file'].flatMap((kind) =>
        ['GET', 'PUT', 'POST', 'PATCH', 'DELETE'].map((method) => `${method} /volumecontent/:id/${kind}`),
      ),
    ],
  ],
];

export function unsupportedRoutes(app: App): void {
  for (const [reason, routes] of NOT_IMPLEMENTED) {
    for (const route of routes) refuse(app, route, () => new ThawError('not_implemented', reason));
  }
  for (const route of ['GET /secrets', 'POST /secrets'])
    refuse(app, route, () => new ThawError('invalid_request', SECRETS));
  for (const method of ['GET', 'POST', 'DELETE'])
    refuse(app, `${method} /secrets/:id`, () => new ThawError('not_found', SECRETS));
}

function refuse(app: App, route: string, error: () => ThawError): void {
  const [method = '', url = ''] = route.split(' ');
  app.route({
    method,
    url,
    // Before the body is read, which may be anything.
    onRequest: async () => {
      throw error();
    },
    handler: () => {},
  });
}
