/** Files and folders of a sandbox. Paths are absolute, or relative to the user's home. */
import { z } from 'zod';
import { GuestPath, GuestUser } from './exec.ts';

const user = GuestUser.optional();

export const ReadFile = z.strictObject({ path: GuestPath, user });
export type ReadFile = z.infer<typeof ReadFile>;

export const StatFile = z.strictObject({ path: GuestPath, user });
export type StatFile = z.infer<typeof StatFile>;

export const ListDir = z.strictObject({
  path: GuestPath,
  user,
  depth: z
    .int()
    .min(1)
    .max(1000)
    .default(1)
    .describe('How many levels of folders; 1: only what is in `path` itself.'),
});
export type ListDir = z.output<typeof ListDir>;

export const MakeDir = z.strictObject({ path: GuestPath, user });
export type MakeDir = z.infer<typeof MakeDir>;

export const MoveFile = z.strictObject({ source: GuestPath, destination: GuestPath, user });
export type MoveFile = z.infer<typeof MoveFile>;

export const RemoveFile = z.strictObject({ path: GuestPath, user });
export type RemoveFile = z.infer<typeof RemoveFile>;

export const WatchDir = z.strictObject({
  path: GuestPath,
  user,
  recursive: z.boolean().default(false).describe('Folders below `path` too.'),
});
export type WatchDir = z.output<typeof WatchDir>;

export const FileEntry = z.object({
  name: z.string(),
  type: z
    .enum(['file', 'directory', 'other'])
    .describe('Of a symbolic link, what it points to; `other` if it points to nothing.'),
  path: z.string(),
  size: z.number(),
  mode: z.number().describe('Permission bits: 420 is 0644.'),
  permissions: z.string().describe('Ten characters, for example `-rw-r--r--`.'),
  owner: z.string(),
  group: z.string(),
  modified_at: z.string(),
  symlink_target: z.string().optional().describe('Only of symbolic links.'),
});
export type FileEntry = z.infer<typeof FileEntry>;

/** One line of a watch. */
export const WatchMessage = z.discriminatedUnion('type', [
  /** First: what happens from now on is told. */
  z.object({ type: z.literal('start') }),
  z.object({
    type: z.literal('change'),
    change: z.enum(['create', 'write', 'remove', 'rename', 'chmod']),
    name: z.string().describe('Relative to the watched folder.'),
  }),
  /** Every 30 s without anything else. */
  z.object({ type: z.literal('keepalive') }),
  /** Last: the watch is over. */
  z.object({ type: z.literal('error'), code: z.string(), data: z.string() }),
]);
export type WatchMessage = z.infer<typeof WatchMessage>;
