/** API keys: who may call, and how much at once. */
import { z } from 'zod';
import { text } from './text.ts';

export const KEY_ID = /^key_[0-9a-f]{16}$/;

/** What can be limited. A paused sandbox counts as one, with its disk, but takes no CPU and no memory. */
export const QUOTA_FIELDS = ['sandboxes', 'vcpus', 'memory_mb', 'disk_mb'] as const;
export type QuotaField = (typeof QUOTA_FIELDS)[number];

/** Null: no limit. */
const Limit = z.int().min(0).max(2_147_483_647).nullable();

export const Quota = z.object({ sandboxes: Limit, vcpus: Limit, memory_mb: Limit, disk_mb: Limit });
export type Quota = z.infer<typeof Quota>;

export const Usage = z.object({
  sandboxes: z.number(),
  vcpus: z.number(),
  memory_mb: z.number(),
  disk_mb: z.number(),
});
export type Usage = z.infer<typeof Usage>;

/** What is left out stays as it is. */
export const QuotaChange = Quota.partial().strict();

const KeyName = text(64).min(1);

export const CreateKey = z.strictObject({
  name: KeyName,
  admin: z.boolean().default(false).describe('May make, change and revoke keys.'),
  operator: z
    .boolean()
    .default(false)
    .describe(
      'May administrate all teams, and read the figures and the audit log of all; only operators make such keys.',
    ),
  quota: QuotaChange.default({}),
});
export type CreateKey = z.output<typeof CreateKey>;
export type CreateKeyInput = z.input<typeof CreateKey>;

export const UpdateKey = z.strictObject({ name: KeyName.optional(), quota: QuotaChange.default({}) });
export type UpdateKey = z.output<typeof UpdateKey>;
export type UpdateKeyInput = z.input<typeof UpdateKey>;

export const ApiKeyInfo = z.object({
  id: z.string(),
  name: z.string(),
  prefix: z.string().describe("The key's first characters."),
  admin: z.boolean(),
  operator: z.boolean(),
  quota: Quota,
  usage: Usage,
  created_at: z.string(),
});
export type ApiKeyInfo = z.infer<typeof ApiKeyInfo>;

/** The only answer that ever holds a key. */
export const CreatedKey = ApiKeyInfo.extend({ key: z.string() });
export type CreatedKey = z.infer<typeof CreatedKey>;
