/** Lists of the E2B API: a bare array, and the token of the next page in a header that the last page has not. */
import type { FastifyReply } from 'fastify';
import { z } from 'zod';

/** `limit` and `nextToken` of a query. */
export const E2bPage = z.object({
  limit: z.coerce.number().int().min(1).max(100).default(100),
  nextToken: z
    .string()
    .max(512)
    .optional()
    // Old clients send an empty one for the first page.
    .transform((token) => token || undefined),
});

export function tellNext(reply: FastifyReply, nextToken: string | undefined): void {
  if (nextToken !== undefined) reply.header('X-Next-Token', nextToken);
}
