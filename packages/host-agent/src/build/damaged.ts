import { ThawError } from '@thaw/api';
import type { BuildId } from '@thaw/snapshot';

/** A build on this host can't be trusted or is not whole. The message is for the caller, the cause for the log. */
export function damaged(id: BuildId, reason: string, cause?: unknown): ThawError {
  return new ThawError('internal', `build ${id} is damaged: ${reason}`, { cause });
}

export function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}
