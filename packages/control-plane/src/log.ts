/** The log: JSON lines, each with the request that it belongs to. */
import { Code, ConnectError } from '@connectrpc/connect';
import { ThawError } from '@thaw/api';
import { type DestinationStream, type Logger, pino } from 'pino';
import { requestFields } from './http/request.ts';

export function openLog(level: string, to?: DestinationStream): Logger {
  const serializers = { err: loggable };
  return pino({ name: 'control-plane', level, mixin: requestFields, serializers }, to ?? pino.destination(1));
}

/**
 * An error for the log, with its causes. What the host said is left out, for it may be what a guest said: of such an
 * error its code is told, and the host has the rest in its own log under the same request.
 */
export function loggable(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const cause = error.cause === undefined ? undefined : loggable(error.cause);
  const { name: type, message, stack } = error;
  if (error instanceof ConnectError) return { type, code: Code[error.code], cause };
  if (error instanceof ThawError && isTold(error.cause)) return { type, kind: error.kind, cause };
  const code = 'code' in error ? error.code : undefined;
  return { type, message, code, stack, cause };
}

/** Said by the other side; what the transport itself met has a cause. */
function isTold(error: unknown): boolean {
  return error instanceof ConnectError && error.cause === undefined;
}
