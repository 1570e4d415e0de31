/** What happened to a sandbox, and who did it. */
import { z } from 'zod';
import { Page } from './sandbox.ts';

export const SandboxEvent = z.object({
  id: z.string(),
  /** When it was over. */
  at: z.string(),
  verb: z
    .string()
    .describe(
      '`create`, `pause`, `resume`, `snapshot`, `fork`, `network`, `update`, `destroy`; `settle`: the row followed its host',
    ),
  actor: z
    .string()
    .describe('The first characters of the API key, or `thaw` for what Thaw did of its own accord'),
  outcome: z.string().describe('`done`, or the code of the error'),
  message: z.string().optional(),
  ms: z.number(),
  timings_ms: z.record(z.string(), z.number()).optional().describe('Milliseconds of each step on the host'),
  request_id: z.string().optional().describe('The `X-Request-Id` of the request that asked for it'),
});
export type SandboxEvent = z.infer<typeof SandboxEvent>;

export const ListEvents = Page.strict();
export type ListEvents = z.output<typeof ListEvents>;
