/** The sandbox of the REST API: what can be asked for and what is answered. */
import { z } from 'zod';
import { ErrorBody } from './errors.ts';
import { TEMPLATE_REF } from './ids.ts';
import { NetworkPolicy, NetworkWish } from './network.ts';
import { text } from './text.ts';

export const SANDBOX_STATUSES = [
  'pending',
  'running',
  'pausing',
  'paused',
  'resuming',
  'snapshotting',
  'stopping',
  'stopped',
  'error',
] as const;
export const SandboxStatus = z.enum(SANDBOX_STATUSES);
export type SandboxStatus = z.infer<typeof SandboxStatus>;

export const SANDBOX_LIMITS = {
  vcpus: { min: 1, max: 32, default: 1 },
  memoryMb: { min: 128, max: 1_048_576, default: 512 },
  diskMb: { min: 1, max: 65_536, default: 4096 },
  /** 0: never. */
  timeoutSec: { min: 0, max: 31_536_000, default: 300 },
} as const;

export const TemplateName = z
  .string()
  .toLowerCase()
  .regex(TEMPLATE_REF, 'must match [a-z0-9][a-z0-9_-]{0,62}, and a tag may follow after a colon');

/** Environment of processes in the guest. */
export const Env = z
  .record(
    z
      .string()
      .max(256)
      .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'variable names are letters, digits and _'),
    text(32_768),
  )
  .refine((env) => Object.keys(env).length <= 256, 'at most 256 variables');

export const Metadata = z
  .record(text(128).min(1), text(4096))
  .refine((metadata) => Object.keys(metadata).length <= 64, 'at most 64 entries')
  // A list answers up to a thousand of them.
  .refine((metadata) => JSON.stringify(metadata).length <= 16_384, 'at most 16384 characters together');
export type Metadata = z.infer<typeof Metadata>;

const { vcpus, memoryMb, diskMb, timeoutSec } = SANDBOX_LIMITS;

export const OnTimeout = z.enum(['kill', 'pause']);
export type OnTimeout = z.infer<typeof OnTimeout>;

/** Idle time: no command runs, no file moves, no stream is open. */
const Timeout = z.int().min(timeoutSec.min).max(timeoutSec.max);

export const CreateSandbox = z.strictObject({
  template: TemplateName.default('minimal').describe(
    'Name or id of a template, and `:tag` for one that is not its default.',
  ),
  vcpus: z.int().min(vcpus.min).max(vcpus.max).optional(),
  memory_mb: z.int().min(memoryMb.min).max(memoryMb.max).optional(),
  disk_mb: z.int().min(diskMb.min).max(diskMb.max).optional(),
  env: Env.optional(),
  metadata: Metadata.optional(),
  timeout_sec: Timeout.default(timeoutSec.default),
  on_timeout: OnTimeout.default('pause').describe('Destroy it at the end of its time, or pause it.'),
  auto_resume: z.boolean().default(true).describe('Commands and files wake it when it is paused.'),
  network: NetworkWish.default({ allow_out: [], deny_out: [] }),
});
export type CreateSandbox = z.output<typeof CreateSandbox>;
export type CreateSandboxInput = z.input<typeof CreateSandbox>;

/** What is left out stays as it is; `metadata` and `network` are replaced whole. */
export const UpdateSandbox = z
  .strictObject({
    timeout_sec: Timeout.optional(),
    on_timeout: OnTimeout.optional(),
    auto_resume: z.boolean().optional(),
    metadata: Metadata.optional(),
    network: NetworkWish.optional(),
  })
  .refine((change) => Object.keys(change).length > 0, 'nothing to change');
export type UpdateSandbox = z.output<typeof UpdateSandbox>;
export type UpdateSandboxInput = z.input<typeof UpdateSandbox>;

export const PauseSandbox = z.strictObject({
  memory: z
    .boolean()
    .default(true)
    .describe('False: only its disk is kept; its next start boots, and no command or file wakes it.'),
});
export type PauseSandbox = z.output<typeof PauseSandbox>;
export type PauseSandboxInput = z.input<typeof PauseSandbox>;

export const ResumeSandbox = z.strictObject({
  memory: z.boolean().default(true).describe('False: only its disk comes back, and it boots.'),
});
export type ResumeSandbox = z.output<typeof ResumeSandbox>;
export type ResumeSandboxInput = z.input<typeof ResumeSandbox>;

export const ForkSandbox = z.strictObject({
  count: z.int().min(1).max(32).default(1).describe('How many sandboxes go on from where this one is.'),
  metadata: Metadata.optional().describe("Their notes; without it the source's."),
  env: Env.optional().describe("On top of the source's."),
});
export type ForkSandbox = z.output<typeof ForkSandbox>;
export type ForkSandboxInput = z.input<typeof ForkSandbox>;

export const BuildInfo = z.object({
  id: z.string(),
  generation: z.number().describe("How many builds lie under this one's memory."),
  stored_bytes: z.number(),
});
export type BuildInfo = z.infer<typeof BuildInfo>;

export const Sandbox = z.object({
  id: z.string(),
  status: SandboxStatus,
  template: z.string(),
  vcpus: z.number(),
  memory_mb: z.number(),
  disk_mb: z.number(),
  timeout_sec: z.number().describe('Idle time after which it ends; 0: never, unless there is an `end_at`.'),
  end_at: z.string().optional().describe('When it ends, whatever it does.'),
  on_timeout: OnTimeout,
  auto_resume: z.boolean(),
  network: NetworkPolicy,
  guest_ip: z.string().optional().describe('Only while it runs.'),
  host_ip: z.string().optional(),
  isolation: z.string().optional().describe('`hardware-vm` or `emulated`.'),
  vmm: z.string().optional(),
  backend: z.string().optional().describe('How its memory comes back: `uffd` or `mapped`.'),
  build: BuildInfo.optional(),
  metadata: Metadata,
  error_reason: z.string().optional(),
  rolled_back_to: z.string().optional().describe('The build that a resume after an error went back to.'),
  created_at: z.string(),
  started_at: z.string().optional(),
  last_active_at: z.string().optional(),
  last_updated: z.string(),
  timings_ms: z
    .record(z.string(), z.number())
    .optional()
    .describe('Milliseconds of each step; only in the answer to the verb that took them.'),
});
export type Sandbox = z.infer<typeof Sandbox>;

/** What became of one fork: it runs, or why it does not. */
export const Fork = z.union([z.object({ sandbox: Sandbox }), ErrorBody]);
export type Fork = z.infer<typeof Fork>;
export const Forks = z.object({ forks: z.array(Fork) });
export type Forks = z.infer<typeof Forks>;

/** What a running sandbox takes of its host, and how its memory came back. */
export const SandboxStats = z.object({
  memory_bytes: z.number(),
  resident_bytes: z.number().describe('Guest memory that is present on the host now.'),
  pages_faulted: z
    .number()
    .describe('Pages that page faults brought in since the VM started, of `pages_total`.'),
  pages_total: z.number(),
  faults: z.number(),
  bytes_copied: z.number(),
  bytes_zeroed: z.number(),
  fault_us: z.object({ p50: z.number(), p99: z.number() }),
  pids: z.record(z.string(), z.number()).describe('Process ids on the host: vmm, pager, blockstore, keeper.'),
});
export type SandboxStats = z.infer<typeof SandboxStats>;

/** A list is cut into pages: `next_token` comes back in the `X-Next-Token` header. */
export const Page = z.object({
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  next_token: z.string().max(256).optional(),
});

export const ListSandboxes = Page.extend({
  /** Comma-separated statuses; without it everything but `stopped`. */
  status: z
    .string()
    .max(200)
    .transform((list) => list.split(','))
    .pipe(z.array(SandboxStatus))
    .optional(),
  template: TemplateName.optional(),
  /** URL-encoded pairs, all of which must match: `user=ann&app=prod`. */
  metadata: z
    .string()
    .max(4096)
    .transform((pairs) => Object.fromEntries(new URLSearchParams(pairs)))
    .pipe(Metadata)
    .optional(),
}).strict();
export type ListSandboxes = z.output<typeof ListSandboxes>;
