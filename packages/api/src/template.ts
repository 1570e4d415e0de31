/** Templates: what sandboxes start from. A snapshot is a template made of a sandbox. */
import { z } from 'zod';
import { SANDBOX_ID, TEMPLATE_ID } from './ids.ts';
import { BuildInfo, Page, TemplateName } from './sandbox.ts';
import { text } from './text.ts';

export const TemplateType = z.enum(['base', 'snapshot']);
export type TemplateType = z.infer<typeof TemplateType>;

export const TemplateInfo = z.object({
  id: z.string(),
  name: z.string(),
  type: TemplateType,
  vcpus: z.number().optional().describe('Absent for base templates: chosen at create.'),
  memory_mb: z.number().optional(),
  disk_mb: z.number().describe('The disk of a snapshot; the smallest disk of a base template.'),
  size_bytes: z.number(),
  build: BuildInfo.optional(),
  error_reason: z.string().optional().describe('Why its host cannot read it: nothing can be made of it.'),
  created_at: z.string(),
  timings_ms: z.record(z.string(), z.number()).optional(),
});
export type TemplateInfo = z.infer<typeof TemplateInfo>;

const ShellCommand = text(131_072).min(1);

export const WarmUp = z
  .strictObject({
    run: z
      .array(ShellCommand)
      .max(64)
      .default([])
      .describe(
        'Commands for sh, one after another; what is to stay goes to the background, its output elsewhere.',
      ),
    ready: ShellCommand.optional().describe('Is run again and again until it ends with 0.'),
    timeout_sec: z.int().min(1).max(240).default(60).describe('For all of it.'),
  })
  .describe('What is done in the sandbox before it is frozen, so that all made of it have it behind them.');
export type WarmUp = z.output<typeof WarmUp>;
export type WarmUpInput = z.input<typeof WarmUp>;

export const CreateSnapshot = z.strictObject({
  sandbox_id: z.string().regex(SANDBOX_ID, 'is not a sandbox id'),
  name: TemplateName.refine((name) => !TEMPLATE_ID.test(name.split(':')[0]!), 'looks like a template id')
    .optional()
    .describe("Without one the template's id is its name. With `:tag` it is one more build of the template."),
  warm_up: WarmUp.optional(),
});
export type CreateSnapshot = z.infer<typeof CreateSnapshot>;

export const CreateSnapshotQuery = z.strictObject({ overwrite: z.enum(['true', 'false']).default('false') });

export const ListTemplates = Page.extend({ type: TemplateType.optional() }).strict();
export type ListTemplates = z.output<typeof ListTemplates>;
