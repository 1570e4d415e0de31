import type { App } from './app.ts';
import { docsPage } from './docs-page.ts';
import { raw } from './openapi.ts';

/** Nothing of the page is loaded from anywhere, and nothing in it runs. */
const POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** `/openapi.yaml`, and the same as a page for people. */
export function docsRoutes(app: App): void {
  app.get('/openapi.yaml', {
    config: { open: true },
    schema: {
      operationId: 'getDescription',
      summary: 'This description',
      response: { 200: raw('application/yaml', 'OpenAPI 3.1') },
    },
    handler: async (_, reply) =>
      reply.type('application/yaml; charset=utf-8').send(app.swagger({ yaml: true })),
  });
  let page: string | undefined;
  app.get('/docs', {
    config: { open: true },
    schema: {
      operationId: 'getDocs',
      summary: 'This description as a page',
      response: { 200: raw('text/html', 'A page') },
    },
    handler: async (_, reply) => {
      page ??= docsPage(app.swagger());
      return reply.header('Content-Security-Policy', POLICY).type('text/html; charset=utf-8').send(page);
    },
  });
}
