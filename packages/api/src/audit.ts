/** The audit log: who wanted to change what, when, from where, and what came of it. */
import { z } from 'zod';
import { Page } from './sandbox.ts';
import { text } from './text.ts';

export const AuditLine = z.object({
  id: z.string(),
  at: z.string().describe('When it was over.'),
  team: z
    .string()
    .optional()
    .describe('The id of the team that it is about; absent: there was no valid key.'),
  key: z.string().optional().describe('The id of the key that asked for it.'),
  actor: z
    .string()
    .describe(
      'The first characters of that key; `nobody` without a valid one, `thaw` for what was done by the program on the host',
    ),
  verb: z.string().describe("The route's `operationId`, or method and path where it has none."),
  target: z.string().describe('Ids and names of what it was about, with spaces between.'),
  outcome: z.string().describe('`done`, or the code of the error.'),
  status: z.number().optional().describe('The HTTP status of the answer.'),
  address: z.string().optional().describe('Where the request came from.'),
  request_id: z.string().optional().describe('The `X-Request-Id` of the answer.'),
});
export type AuditLine = z.infer<typeof AuditLine>;

const Word = text(256).min(1);
const Time = z.iso.datetime({ offset: true, error: 'must be a time such as 2026-01-31T12:00:00Z' });

/** All of those that are given must hold. */
export const ListAudit = Page.extend({
  team: Word.optional().describe('Name or id of a team; for operators.'),
  key: Word.optional().describe('The id of a key, or its first characters.'),
  verb: Word.optional(),
  target: Word.optional().describe('One of the ids or names.'),
  outcome: Word.optional().describe('`done`, `failed` for all else, or the code of an error.'),
  since: Time.optional(),
  until: Time.optional().describe('Not included.'),
}).strict();
export type ListAudit = z.output<typeof ListAudit>;
export type ListAuditInput = Partial<Omit<z.input<typeof ListAudit>, 'limit' | 'next_token'>>;
