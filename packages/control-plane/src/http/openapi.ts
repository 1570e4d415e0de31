/**
 * The API's description, OpenAPI 3.1, made of the routes themselves: what a route takes and answers is declared once, as
 * the schemas that it validates with. A route adds `summary` and `operationId`; what no schema can say stands in its
 * `config.describe`.
 */
import swagger, { type SwaggerTransform, type SwaggerTransformObject } from '@fastify/swagger';
import * as api from '@thaw/api';
import type { FastifySchema } from 'fastify';
import { createJsonSchemaTransform, createJsonSchemaTransformObject } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { App } from './app.ts';
import { prune } from './openapi-components.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What a description tells besides the schemas that are enforced. */
    describe?: {
      /** The fields of a form, which is parsed as it streams in. */
      form?: z.ZodType;
      /** A WebSocket's messages, by the names of their schemas. */
      socket?: { receives: (keyof typeof api)[]; sends: (keyof typeof api)[] };
    };
  }
}

/** For `response` of a route: it is done, and there is nothing to tell. */
export const NO_CONTENT = z.undefined().describe('Done.');

/** For `response` of a route that answers bytes or text of a type of its own. */
export const raw = (type: string, description: string) => ({
  description,
  content: { [type]: { schema: z.any() } },
});

const INTRODUCTION = `Sandboxes that pause, resume and fork.

Every answer has a header \`X-Request-Id\`, which the logs name too; a request may bring its own. Errors are
\`{"error":{"code","message"}}\`: the code says what can be done next, the message is for people. Unknown fields are refused.`;

const TAGS: Record<string, string> = {
  sandboxes: 'Virtual machines, their commands and files',
  snapshots: 'Templates made of sandboxes',
  keys: 'API keys and their quotas',
  team: 'The quota of all keys together',
  teams: 'All teams, for operators',
  audit: 'Who wanted to change what',
  operation: 'For whoever runs Thaw',
};

type Method = Record<string, unknown>;
type Responses = Record<string, unknown>;
interface Described {
  paths: Record<string, Record<string, Method>>;
  components?: { schemas?: Record<string, unknown> };
}

/** To be called before the routes are added; `app.swagger()` makes the document when all are there. */
export async function describeRoutes(app: App): Promise<void> {
  const schemaRegistry = namedSchemas();
  const options = { schemaRegistry, zodToJsonConfig: { override: adjust } };
  const toJson = createJsonSchemaTransform(options);
  const toObject = createJsonSchemaTransformObject(options);

  const transform: SwaggerTransform<FastifySchema> = (given) => {
    const { schema, url, route } = given;
    const { form, socket } = route.config?.describe ?? {};
    const described = toJson({
      ...given,
      schema: {
        ...schema,
        ...(form && { body: form, consumes: ['multipart/form-data'] }),
        // A parameter's schema stands beside it: a reference to all of them says nothing.
        ...(schema?.querystring instanceof z.ZodObject && { querystring: schema.querystring.extend({}) }),
        response: schema?.response ?? { 200: z.record(z.string(), z.unknown()).describe('It is.') },
      },
    });
    const extra: Method = {
      tags: [tagOf(url)],
      'x-open': route.config?.open === true,
      'x-optional-body': isOptional(schema?.body),
      ...(socket && { 'x-websocket': messages(socket) }),
    };
    return { url: described.url, schema: { ...described.schema, ...extra } };
  };

  const transformObject: SwaggerTransformObject = (given) => {
    const document = toObject(given) as Described;
    for (const [path, methods] of Object.entries(document.paths)) {
      for (const operation of Object.values(methods)) finish(path, operation);
    }
    const components = { ...document.components, responses: errorResponses() };
    return prune({ ...document, components }) as ReturnType<SwaggerTransformObject>;
  };

  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Thaw', version: '1', description: INTRODUCTION, license: { name: 'Apache-2.0' } },
      tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
      components: {
        securitySchemes: {
          key: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
          bearer: { type: 'http', scheme: 'bearer' },
        },
      },
      security: [{ key: [] }, { bearer: [] }],
    },
    transform,
    transformObject,
  });
}

/** Whatever the contract exports is a component of that name. */
function namedSchemas() {
  const registry = z.registry<{ id?: string }>();
  for (const [name, value] of Object.entries(api)) {
    if (value instanceof z.ZodType) registry.add(value, { id: name });
  }
  return registry;
}

/** Answers may gain fields: only what is taken is closed. And a body that is not there has the type null. */
function adjust({
  zodSchema,
  jsonSchema,
}: {
  zodSchema: z.core.$ZodType;
  jsonSchema: z.core.JSONSchema.BaseSchema;
}): void {
  const { def } = zodSchema._zod as z.core.$ZodTypeInternals & { def: { catchall?: unknown } };
  if (def.type === 'object' && def.catchall === undefined) delete jsonSchema.additionalProperties;
  if (def.type === 'undefined') jsonSchema.type = 'null';
  const description = z.globalRegistry.get(zodSchema)?.description;
  if (description !== undefined) jsonSchema.description = description;
}

function tagOf(url: string): string {
  return /^\/v1\/([a-z0-9]+)/.exec(url)?.[1] ?? 'operation';
}

function isOptional(body: unknown): boolean {
  return body instanceof z.ZodType && body.safeParse(undefined).success;
}

function messages({ receives, sends }: { receives: string[]; sends: string[] }) {
  const reference = (name: string) => ({ $ref: `#/components/schemas/${name}` });
  return {
    receives: receives.map((name) => reference(`${name}Input`)),
    sends: sends.map(reference),
  };
}

/** Who may ask, which errors come back, and what the library cannot say. */
function finish(path: string, operation: Method): void {
  const open = operation['x-open'] === true;
  if (open) operation.security = [];
  if (operation['x-optional-body'] && operation.requestBody)
    operation.requestBody = { ...operation.requestBody, required: false };
  delete operation['x-open'];
  delete operation['x-optional-body'];
  const responses = operation.responses as Responses;
  const parameters = (operation.parameters ?? []) as { name: string; in: string }[];
  if (parameters.some(({ name }) => name === 'next_token')) {
    const found = responses['200'] as Record<string, unknown>;
    found.headers = {
      'X-Next-Token': {
        description: 'The `next_token` of the next page, if there is one.',
        schema: { type: 'string' },
      },
    };
  }
  for (const response of Object.values(responses) as { description: string }[]) {
    if (response.description === 'Default Response') response.description = 'Done.';
  }
  const errors = [
    ...(parameters.length > 0 || operation.requestBody ? [400] : []),
    ...(open ? [] : [401]),
    ...(path.includes('{') ? [404] : []),
  ];
  for (const status of errors) responses[status] = { $ref: `#/components/responses/${status}` };
  responses.default = { $ref: '#/components/responses/default' };
}

function errorResponses(): Responses {
  const content = { 'application/json': { schema: { $ref: '#/components/schemas/ErrorBody' } } };
  const kinds = Object.entries(api.ERROR_KINDS);
  const named = (status: number) =>
    kinds.filter(([, { http }]) => http === status).map(([kind]) => `\`${kind}\``);
  const catalogue = [...new Set(kinds.map(([, { http }]) => http))].map(
    (status) => `${status} ${named(status).join(', ')}`,
  );
  return {
    ...Object.fromEntries(
      [400, 401, 404].map((status) => [status, { description: named(status).join(', '), content }]),
    ),
    default: { description: `An error: ${catalogue.join('; ')}`, content },
  };
}
