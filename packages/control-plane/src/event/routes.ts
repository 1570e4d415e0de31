import { ListEvents, SandboxEvent } from '@thaw/api';
import { z } from 'zod';
import type { App } from '../http/app.ts';
import { raw } from '../http/openapi.ts';
import type { Plane } from '../plane.ts';
import { page, readToken } from '../sandbox/list.ts';
import { SandboxParams } from '../sandbox/routes.ts';
import { requireSandbox } from '../sandbox/sandbox.ts';
import { type EventRow, listEvents } from './table.ts';

export function eventRoutes(app: App, plane: Plane): void {
  app.get('/v1/sandboxes/:id/events', {
    schema: {
      operationId: 'listSandboxEvents',
      summary: 'Who did what to a sandbox, newest first; kept as long as its row',
      params: SandboxParams,
      querystring: ListEvents,
      response: { 200: z.array(SandboxEvent) },
    },
    handler: async (request, reply) => {
      const { id } = await requireSandbox(plane, request.teamId, request.params.id);
      const { limit, next_token } = request.query;
      await plane.history.settled(id);
      const rows = await listEvents(plane.db, id, limit + 1, readToken(next_token));
      const { items, nextToken } = page(rows, limit, toEvent);
      if (nextToken) reply.header('X-Next-Token', nextToken);
      return items;
    },
  });
  app.get('/v1/sandboxes/:id/logs', {
    schema: {
      operationId: 'getSandboxLogs',
      summary:
        'What a console said last: boot messages and the serial port, at most 256 KiB; gone with the sandbox',
      params: SandboxParams,
      response: { 200: raw('text/plain', 'The text') },
    },
    handler: async (request, reply) => {
      const { id } = await requireSandbox(plane, request.teamId, request.params.id);
      return reply.type('text/plain; charset=utf-8').send(await plane.host.logs(id));
    },
  });
}

function toEvent(row: EventRow): SandboxEvent {
  return {
    id: row.id,
    at: row.created_at.toISOString(),
    verb: row.verb,
    actor: row.actor,
    outcome: row.outcome,
    ...(row.message !== null && { message: row.message }),
    ms: row.ms,
    ...(Object.keys(row.timings_ms).length > 0 && { timings_ms: row.timings_ms }),
    ...(row.request_id !== null && { request_id: row.request_id }),
  };
}
