/** Sandboxes of the E2B API. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { App } from '../../http/app.ts';
import { NO_CONTENT } from '../../http/openapi.ts';
import type { Plane } from '../../plane.ts';
import { destroySandbox } from '../../sandbox/destroy.ts';
import { setEnd } from '../../sandbox/end-at.ts';
import { resumeSandbox } from '../../sandbox/resume.ts';
import { tellNext } from '../page.ts';
import { CreateV1, CreateV2, type CreateWish, create, Ttl } from './create.ts';
import { ListQuery, list } from './list.ts';
import { requireKillable, requireListed, toDetail, toE2bSandbox, toListed } from './sandbox.ts';
import { E2bSandbox, ListedSandbox, SandboxDetail } from './schema.ts';
import { connect, pause } from './wake.ts';

const Params = z.object({ id: z.string() });
const LEGACY_TTL_SEC = 15;
/** What old clients expect in one answer. */
const LEGACY_LIST_MAX = 1000;

const Connect = z.object({ timeout: Ttl.nullish(), memory: z.boolean().nullish() });
const Resume = z.object({ timeout: Ttl.nullish() });
const Pause = z.object({ memory: z.boolean().nullish(), requireHealthyGuest: z.boolean().nullish() });
/** Below 0 counts as 0, which is now. */
const Timeout = z.object({ timeout: z.int().max(Ttl.maxValue!) });
const Refresh = z.object({ duration: z.int().max(Ttl.maxValue!).nullish() });

export function sandboxRoutes(app: App, plane: Plane): void {
  createRoutes(app, plane);
  listRoutes(app, plane);
  timeRoutes(app, plane);

  app.get('/sandboxes/:id', {
    schema: { params: Params, response: { 200: SandboxDetail } },
    handler: async ({ teamId, params }) => toDetail(plane, await requireListed(plane, teamId, params.id)),
  });
  app.delete('/sandboxes/:id', {
    schema: { params: Params, response: { 204: NO_CONTENT } },
    handler: async ({ teamId, params }, reply) => {
      await requireKillable(plane, teamId, params.id);
      await destroySandbox(plane, teamId, params.id);
      return reply.code(204).send();
    },
  });
  app.post('/sandboxes/:id/pause', {
    schema: { params: Params, body: Pause.nullish(), response: { 204: NO_CONTENT } },
    handler: async ({ teamId, params, body }, reply) => {
      const how = { memory: body?.memory ?? true, healthy: body?.requireHealthyGuest ?? false };
      await pause(plane, teamId, params.id, how);
      return reply.code(204).send();
    },
  });
  for (const path of ['/v2/sandboxes/:id/connect', '/sandboxes/:id/connect'] as const) {
    app.post(path, {
      schema: { params: Params, body: Connect.nullish(), response: { 200: E2bSandbox, 201: E2bSandbox } },
      handler: async ({ teamId, params, body }, reply) => {
        const wish = { ttlSec: body?.timeout ?? undefined, memory: body?.memory ?? true };
        const { row, resumed } = await connect(plane, teamId, params.id, wish);
        return reply.code(resumed ? 201 : 200).send(toE2bSandbox(plane, row));
      },
    });
  }
  app.post('/sandboxes/:id/resume', {
    schema: { params: Params, body: Resume.nullish(), response: { 201: E2bSandbox } },
    handler: async ({ teamId, params, body }, reply) => {
      await requireListed(plane, teamId, params.id);
      const wish = { memory: true, ttlSec: body?.timeout ?? LEGACY_TTL_SEC };
      const { row } = await resumeSandbox(plane, teamId, params.id, wish, ['paused']);
      return reply.code(201).send(toE2bSandbox(plane, row));
    },
  });
}

function createRoutes(app: App, plane: Plane): void {
  const handler = async (request: FastifyRequest & { body: CreateWish }, reply: FastifyReply) => {
    const key = request.headers['idempotency-key'];
    const row = await create(plane, request.caller!, request.body, key as string | undefined);
    return reply.code(201).send(toE2bSandbox(plane, row));
  };
  app.post('/v2/sandboxes', { schema: { body: CreateV2, response: { 201: E2bSandbox } }, handler });
  app.post('/sandboxes', { schema: { body: CreateV1, response: { 201: E2bSandbox } }, handler });
}

function listRoutes(app: App, plane: Plane): void {
  app.get('/v2/sandboxes', {
    schema: { querystring: ListQuery, response: { 200: z.array(ListedSandbox) } },
    handler: async ({ teamId, query }, reply) => {
      const { rows, nextToken } = await list(plane, teamId, query);
      tellNext(reply, nextToken);
      return rows.map(toListed);
    },
  });
  app.get('/sandboxes', {
    schema: { querystring: ListQuery.pick({ metadata: true }), response: { 200: z.array(ListedSandbox) } },
    handler: async ({ teamId, query }) => {
      const wish = { ...query, state: ['running' as const], limit: LEGACY_LIST_MAX, order: 'desc' as const };
      return (await list(plane, teamId, { ...wish, nextToken: undefined })).rows.map(toListed);
    },
  });
}

function timeRoutes(app: App, plane: Plane): void {
  app.post('/sandboxes/:id/timeout', {
    schema: { params: Params, body: Timeout, response: { 204: NO_CONTENT } },
    handler: async ({ teamId, params, body }, reply) => {
      await setEnd(plane, teamId, params.id, Math.max(body.timeout, 0));
      return reply.code(204).send();
    },
  });
  app.post('/sandboxes/:id/refreshes', {
    schema: { params: Params, body: Refresh.nullish(), response: { 204: NO_CONTENT } },
    handler: async ({ teamId, params, body }, reply) => {
      const sec = Math.max(body?.duration ?? 0, LEGACY_TTL_SEC);
      await setEnd(plane, teamId, params.id, sec, { onlyLater: true });
      return reply.code(204).send();
    },
  });
}
