/** The log: JSON lines on standard error, each with the request that it belongs to. */
import { Code, ConnectError } from '@connectrpc/connect';
import pino, { type Logger } from 'pino';

export function openLog(level: string, requestFields: () => object, to = pino.destination(2)): Logger {
  return pino({ level, mixin: requestFields, serializers: { err: loggable } }, to);
}

/**
 * An error for the log, with its causes. What a guest said is left out: of an error that came from one only its code is
 * told, of its other answers the status.
 */
export function loggable(error: unknown): unknown {
  if (error instanceof ConnectError) return { guest: Code[error.code] };
  if (error instanceof Error) {
    const { name, message, stack } = error;
    const code = 'code' in error ? error.code : undefined;
    const cause = error.cause === undefined ? undefined : loggable(error.cause);
    return { type: name, message, code, stack, cause };
  }
  if (Array.isArray(error)) return error.map(loggable);
  if (typeof error !== 'object' || error === null) return error;
  return 'status' in error ? { status: error.status } : { type: typeof error };
}
