import { type AuditLine, AuditLine as AuditLineSchema, kindOfStatus, ListAudit, ThawError } from '@thaw/api';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { type App, NOBODY } from '../http/app.ts';
import type { Plane } from '../plane.ts';
import { page, readToken } from '../sandbox/list.ts';
import { requireTeam } from '../team/team.ts';
import type { Line } from './audit.ts';
import { type AuditRow, listLines } from './table.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Recorded though it is a GET: it changes something. */
    audited?: boolean;
  }
}

const READS = ['GET', 'HEAD', 'OPTIONS'];

/** To be called before the routes that are to be recorded are added. */
export function auditRoutes(app: App, plane: Plane): void {
  // Not when the answer has arrived: whoever leaves before has changed something as well.
  app.addHook('onSend', (request, reply, payload, done) => {
    if (!READS.includes(request.method) || request.routeOptions.config.audited)
      recordAnswer(plane, request, reply);
    done(null, payload);
  });
  app.get('/v1/audit', {
    schema: {
      operationId: 'listAudit',
      summary: 'Who wanted to change what, and what came of it, newest first',
      description:
        'For keys that may administrate: the lines of their own team; for operators: those of all teams, and of requests without a valid key.',
      querystring: ListAudit,
      response: { 200: z.array(AuditLineSchema) },
    },
    handler: async ({ caller, query }, reply) => {
      if (!caller?.admin) throw new ThawError('forbidden', 'this API key may not read the audit log');
      if (query.team !== undefined && !caller.operator)
        throw new ThawError('forbidden', 'team: this API key reads the lines of its own team only');
      const { limit, next_token, team, since, until, ...filter } = query;
      const teamId = await teamOf(plane, team, caller);
      await plane.audit.flush();
      const times = { since: timeOf(since), until: timeOf(until) };
      const rows = await listLines(
        plane.db,
        { ...filter, ...times, teamId },
        limit + 1,
        readToken(next_token),
      );
      const { items, nextToken } = page(rows, limit, toLine);
      if (nextToken) reply.header('X-Next-Token', nextToken);
      return items;
    },
  });
}

function timeOf(text: string | undefined): Date | undefined {
  return text === undefined ? undefined : new Date(text);
}

/** One that was deleted still has lines, by its id. */
async function teamOf(
  plane: Plane,
  team: string | undefined,
  caller: { operator: boolean; teamId: string },
): Promise<string | undefined> {
  if (!caller.operator) return caller.teamId;
  if (team === undefined || team.startsWith('team_')) return team;
  return (await requireTeam(plane.db, team)).id;
}

/** Written once for each request. */
function recordAnswer(plane: Plane, request: FastifyRequest, reply: FastifyReply): void {
  if (request.recorded) return;
  request.recorded = true;
  const { statusCode: status } = reply;
  const failed = request.refusal ?? kindOfStatus(status) ?? 'failed';
  record(plane, request, { outcome: status < 400 ? 'done' : failed, status });
}

/** A line about `request`: what it is, unless `what` says otherwise. */
export function record(
  plane: Plane,
  request: FastifyRequest,
  what: Pick<Line, 'outcome' | 'status'> & Partial<Line>,
): void {
  const { caller, current, method, routeOptions } = request;
  const { operationId } = (routeOptions.schema ?? {}) as { operationId?: string };
  plane.audit.record({
    team_id: current?.aboutTeam ?? caller?.teamId ?? null,
    key_id: caller?.keyId ?? null,
    actor: caller?.prefix ?? NOBODY,
    verb: operationId ?? `${method} ${routeOptions.url ?? 'no such path'}`,
    targets: [...Object.values(request.params ?? {}).map(String), ...(current?.targets ?? [])],
    address: request.ip ?? null,
    request_id: request.id,
    ...what,
  });
}

function toLine(row: AuditRow): AuditLine {
  return {
    id: row.id,
    at: row.created_at.toISOString(),
    ...(row.team_id !== null && { team: row.team_id }),
    ...(row.key_id !== null && { key: row.key_id }),
    actor: row.actor,
    verb: row.verb,
    target: row.target,
    outcome: row.outcome,
    ...(row.status !== null && { status: row.status }),
    ...(row.address !== null && { address: row.address }),
    ...(row.request_id !== null && { request_id: row.request_id }),
  };
}
