/** Teams: each has its own keys, sandboxes and templates, and sees nothing of another's. */
import { z } from 'zod';
import { TEAM_ID, TEMPLATE_NAME } from './ids.ts';
import { CreatedKey, Quota, QuotaChange, Usage } from './key.ts';

/** The team that was there first; operators' keys are of it. */
export const DEFAULT_TEAM = 'default';

const TeamName = z
  .string()
  .regex(TEMPLATE_NAME, 'must match [a-z0-9][a-z0-9_-]{0,62}')
  .refine((name) => name === DEFAULT_TEAM || !TEAM_ID.test(name), 'looks like the id of a team');

export const UpdateTeam = z.strictObject({ quota: QuotaChange.default({}) });
export type UpdateTeam = z.output<typeof UpdateTeam>;
export type UpdateTeamInput = z.input<typeof UpdateTeam>;

const granted = QuotaChange.default({}).describe(
  'The most that the team may have at once, whatever quota it gives itself.',
);

export const CreateTeam = z.strictObject({ name: TeamName, granted });
export type CreateTeam = z.output<typeof CreateTeam>;
export type CreateTeamInput = z.input<typeof CreateTeam>;

export const ChangeTeam = z.strictObject({ name: TeamName.optional(), granted });
export type ChangeTeam = z.output<typeof ChangeTeam>;
export type ChangeTeamInput = z.input<typeof ChangeTeam>;

export const DeleteTeam = z.strictObject({
  force: z.enum(['true', 'false']).default('false').describe('Destroy its sandboxes and templates first.'),
});

export const TeamInfo = z.object({
  id: z.string(),
  name: z.string(),
  quota: Quota.describe(
    'What counts: the quota of the team itself, but at most what the operator grants it.',
  ),
  granted: Quota,
  usage: Usage,
  closing: z.literal(true).optional().describe('It is being deleted: nothing is made for it any more.'),
  created_at: z.string(),
});
export type TeamInfo = z.infer<typeof TeamInfo>;

/** With its first key, which may administrate the team. */
export const CreatedTeam = TeamInfo.extend({ key: CreatedKey });
export type CreatedTeam = z.infer<typeof CreatedTeam>;
