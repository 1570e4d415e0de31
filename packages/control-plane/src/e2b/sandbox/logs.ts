/**
 * What a sandbox's console said. It has no clock: a line has the time at which its run began, or, once that is over, the
 * time at which it ended.
 */
import { z } from 'zod';
import type { App } from '../../http/app.ts';
import type { Plane } from '../../plane.ts';
import type { SandboxRow } from '../../sandbox/table.ts';
import { requireListed } from './sandbox.ts';

const LINES_MAX = 1000;
/** The host writes it when a run ends. */
const ENDED = /^--- ended (\S+)$/;

const Line = z.object({ timestamp: z.string(), line: z.string() });
const Entry = z.object({
  timestamp: z.string(),
  message: z.string(),
  level: z.enum(['debug', 'info', 'warn', 'error']),
  fields: z.record(z.string(), z.string()),
});
type Entry = z.infer<typeof Entry>;

const Params = z.object({ id: z.string() });
const Limit = z.coerce.number().int().min(0).max(LINES_MAX).default(LINES_MAX);
/** Milliseconds since 1970. */
const Time = z.coerce.number().int().min(0).optional();

const Query = z.object({ start: Time, limit: Limit });
const QueryV2 = z.object({
  cursor: Time,
  limit: Limit,
  direction: z.enum(['forward', 'backward']).default('forward'),
  level: z.enum(['debug', 'info', 'warn', 'error']).default('debug'),
  search: z.string().max(256).default(''),
});

export function logsRoutes(app: App, plane: Plane): void {
  app.get('/sandboxes/:id/logs', {
    schema: {
      params: Params,
      querystring: Query,
      response: { 200: z.object({ logs: z.array(Line), logEntries: z.array(Entry) }) },
    },
    handler: async (request) => {
      const { start = 0, limit } = request.query;
      const all = await readEntries(plane, request.teamId, request.params.id);
      const entries = all.filter(({ timestamp }) => Date.parse(timestamp) >= start).slice(0, limit);
      const logs = entries.map(({ timestamp, message }) => ({ timestamp, line: message }));
      return { logs, logEntries: entries };
    },
  });
  app.get('/v2/sandboxes/:id/logs', {
    schema: {
      params: Params,
      querystring: QueryV2,
      response: { 200: z.object({ logs: z.array(Entry) }) },
    },
    handler: async (request) => {
      const { cursor, limit, direction, level, search } = request.query;
      const isForward = direction === 'forward';
      const all = await readEntries(plane, request.teamId, request.params.id);
      const entries = all.filter(({ timestamp, message }) => {
        const at = Date.parse(timestamp);
        const isPast = cursor !== undefined && (isForward ? at < cursor : at > cursor);
        return !isPast && message.includes(search);
      });
      // Each line is told for information: the console has no levels.
      const told = level === 'warn' || level === 'error' ? [] : entries;
      return { logs: (isForward ? told : told.reverse()).slice(0, limit) };
    },
  });
}

async function readEntries(plane: Plane, teamId: string, id: string): Promise<Entry[]> {
  const row = await requireListed(plane, teamId, id);
  return toEntries(await plane.host.logs(id), row);
}

/** Oldest first. */
function toEntries(text: string, row: SandboxRow): Entry[] {
  const entries: Entry[] = [];
  let run: string[] = [];
  const end = (timestamp: string) => {
    for (const message of run) entries.push({ timestamp, message, level: 'info', fields: {} });
    run = [];
  };
  for (const line of text.split(/\r?\n/)) {
    const ended = ENDED.exec(line)?.[1];
    if (ended !== undefined && !Number.isNaN(Date.parse(ended))) end(ended);
    else if (line !== '') run.push(line);
  }
  end((row.started_at ?? row.created_at).toISOString());
  return entries;
}
