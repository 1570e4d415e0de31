/** What the E2B API takes and answers about templates. */
import { TAG } from '@thaw/api';
import { z } from 'zod';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const Tag = z
  .string()
  .trim()
  .toLowerCase()
  .regex(TAG, 'a tag has letters, digits and ._- only')
  .refine((tag) => !UUID.test(tag), 'a tag cannot be a UUID: those are ids of builds');
const Tags = z.array(Tag).min(1).max(100);
const Name = z.string().max(300);

export const AssignTags = z.object({ target: Name, tags: Tags });
export const RemoveTags = z.object({ name: Name, tags: Tags });
export const AssignedTags = z.object({ buildID: z.string(), tags: z.array(z.string()) });

export const TemplateTag = z.object({ tag: z.string(), buildID: z.string(), createdAt: z.string() });
export type TemplateTag = z.infer<typeof TemplateTag>;

export const TemplateAlias = z.object({ templateID: z.string(), public: z.boolean() });

const shared = {
  templateID: z.string(),
  public: z.boolean(),
  aliases: z.array(z.string()),
  names: z.array(z.string()),
  createdAt: z.string(),
  updatedAt: z.string(),
  lastSpawnedAt: z.string().nullable(),
  spawnCount: z.number(),
};
const size = { cpuCount: z.number(), memoryMB: z.number(), diskSizeMB: z.number(), envdVersion: z.string() };
const Status = z.enum(['ready', 'error']);

export const E2bTemplate = z.object({
  ...shared,
  ...size,
  buildID: z.string(),
  createdBy: z.null(),
  buildCount: z.number(),
  buildStatus: Status,
});
export type E2bTemplate = z.infer<typeof E2bTemplate>;

export const TemplateWithBuilds = z.object({
  ...shared,
  builds: z.array(
    z.object({
      ...size,
      buildID: z.string(),
      status: Status,
      createdAt: z.string(),
      updatedAt: z.string(),
      finishedAt: z.string(),
    }),
  ),
});
export type TemplateWithBuilds = z.infer<typeof TemplateWithBuilds>;

export const UpdateTemplate = z.object({ public: z.boolean().optional() });
