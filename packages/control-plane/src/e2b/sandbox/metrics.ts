/** What sandboxes used, as their hosts sampled it: asking wakes nothing and is no use of a sandbox. */

import { ThawError } from '@thaw/api';
import type { Sample } from '@thaw/api/rpc';
import { z } from 'zod';
import type { App } from '../../http/app.ts';
import type { Plane } from '../../plane.ts';
import { findSandboxes } from '../../sandbox/table.ts';
import { requireListed, stateOf } from './sandbox.ts';

const IDS_MAX = 100;

const SandboxMetric = z.object({
  timestamp: z.string(),
  timestampUnix: z.number(),
  cpuCount: z.number(),
  cpuUsedPct: z.number(),
  memUsed: z.number(),
  memTotal: z.number(),
  memCache: z.number(),
  diskUsed: z.number(),
  diskTotal: z.number(),
});
type SandboxMetric = z.infer<typeof SandboxMetric>;

const SECONDS_MAX = 1e11;

/**
 * Seconds since 1970; a client that divides milliseconds may send a fraction, and the Python SDK of 2.2 does not divide:
 * what is beyond all reason as seconds are milliseconds.
 */
const Seconds = z.coerce
  .number()
  .min(0)
  .max(SECONDS_MAX * 1000)
  .transform((time) => (time > SECONDS_MAX ? time / 1000 : time))
  .optional();
const Range = z.object({ start: Seconds, end: Seconds });

const Ids = z
  .string()
  .transform((list) => list.split(',').filter((id) => id !== ''))
  .pipe(z.array(z.string().max(100)).min(1).max(IDS_MAX));

export function metricsRoutes(app: App, plane: Plane): void {
  app.get('/sandboxes/:id/metrics', {
    schema: {
      params: z.object({ id: z.string() }),
      querystring: Range,
      response: { 200: z.array(SandboxMetric) },
    },
    handler: async (request) => {
      const { id } = await requireListed(plane, request.teamId, request.params.id);
      const { start, end } = request.query;
      if (start !== undefined && end !== undefined && start > end)
        throw new ThawError('invalid_request', 'start: lies after end');
      // The second that is named last is part of the range.
      const toMs = end === undefined ? undefined : Math.floor(end * 1000) + 999;
      const fromMs = start === undefined ? undefined : Math.floor(start * 1000);
      const samples = await plane.host.samples([id], { fromMs, toMs });
      return (samples.get(id) ?? []).map(toMetric);
    },
  });
  app.get('/sandboxes/metrics', {
    schema: {
      querystring: z.object({ sandbox_ids: Ids }),
      response: { 200: z.object({ sandboxes: z.record(z.string(), SandboxMetric) }) },
    },
    handler: async (request) => {
      const rows = await findSandboxes(plane.db, request.teamId, request.query.sandbox_ids);
      const ids = rows.filter(({ status }) => stateOf(status) !== undefined).map(({ id }) => id);
      const samples = ids.length === 0 ? new Map() : await plane.host.samples(ids, { latest: true });
      const told: Record<string, SandboxMetric> = {};
      for (const [id, [last]] of samples) if (last !== undefined) told[id] = toMetric(last);
      return { sandboxes: told };
    },
  });
}

function toMetric(sample: Sample): SandboxMetric {
  const at = new Date(Number(sample.unixMs));
  return {
    timestamp: at.toISOString(),
    timestampUnix: Math.floor(at.getTime() / 1000),
    cpuCount: sample.cpuCount,
    cpuUsedPct: sample.cpuUsedPct,
    memUsed: Number(sample.memUsedBytes),
    memTotal: Number(sample.memTotalBytes),
    memCache: Number(sample.memCacheBytes),
    diskUsed: Number(sample.diskUsedBytes),
    diskTotal: Number(sample.diskTotalBytes),
  };
}
