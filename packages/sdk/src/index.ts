export { type ExecEnd, ExecStream, type Output } from './exec-stream.ts';
export type { FileContent, FileOptions } from './files.ts';
export type { Keys } from './keys.ts';
export { type AsUser, type ListFilter, type SnapshotOptions, Thaw, type ThawOptions } from './thaw.ts';
export type { Change, WatchOptions } from './watch.ts';
