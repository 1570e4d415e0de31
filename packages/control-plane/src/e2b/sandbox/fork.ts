/** Forks of the E2B API: each has a time of its own, and is told by itself. */
import { z } from 'zod';
import type { App } from '../../http/app.ts';
import { toThawError } from '../../http/errors.ts';
import type { Plane } from '../../plane.ts';
import { fork } from '../../sandbox/fork.ts';
import type { Done } from '../../sandbox/sandbox.ts';
import { e2bErrorBody } from '../errors.ts';
import { Ttl } from './create.ts';
import { requireListed, toE2bSandbox } from './sandbox.ts';
import { E2bSandbox } from './schema.ts';

const TTL_SEC = 15;
const COUNT_MAX = 20;

const Body = z
  .object({
    timeout: Ttl.nullish().transform((sec) => sec ?? TTL_SEC),
    count: z
      .int()
      .min(1)
      .max(COUNT_MAX)
      .nullish()
      .transform((count) => count ?? 1),
  })
  .nullish();

/** Exactly one of the two. */
const ForkResult = z.object({
  sandbox: E2bSandbox.optional(),
  error: z.object({ code: z.number(), message: z.string(), error_code: z.string().optional() }).optional(),
});
type ForkResult = z.infer<typeof ForkResult>;

export function forkRoutes(app: App, plane: Plane): void {
  app.post('/sandboxes/:id/fork', {
    schema: {
      params: z.object({ id: z.string() }),
      body: Body,
      response: { 201: z.array(ForkResult) },
    },
    handler: async (request, reply) => {
      const { id } = await requireListed(plane, request.teamId, request.params.id);
      const { count, timeout: ttlSec } = request.body ?? { count: 1, timeout: TTL_SEC };
      const settled = await fork(plane, request.caller!, id, { count, ttlSec });
      return reply.code(201).send(settled.map((one) => toResult(plane, one)));
    },
  });
}

function toResult(plane: Plane, settled: PromiseSettledResult<Done>): ForkResult {
  if (settled.status === 'fulfilled') return { sandbox: toE2bSandbox(plane, settled.value.row) };
  return { error: e2bErrorBody(toThawError(settled.reason)) };
}
