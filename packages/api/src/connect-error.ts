/** The error catalogue on the way through Connect, and back. */
import { Code, ConnectError } from '@connectrpc/connect';
import { ERROR_KINDS, type ErrorKind, ThawError } from './errors.ts';

function codeOf(kind: ErrorKind): Code {
  return Code[ERROR_KINDS[kind].connect];
}

export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  if (error instanceof ThawError) return new ConnectError(error.message, codeOf(error.kind));
  return new ConnectError('internal error', Code.Internal);
}

/**
 * Turns a Connect error back into the kind that made it. Only what the other side said is shown to callers: an error
 * that the transport made here has a cause, and its text names sockets and addresses.
 */
export function fromConnectError(error: unknown): ThawError {
  if (error instanceof ThawError) return error;
  const connect = ConnectError.from(error);
  if (connect.cause instanceof ThawError) return connect.cause;
  if (connect.code === Code.Canceled)
    return new ThawError('unavailable', 'the call was cancelled', { cause: error });
  if (connect.code === Code.DeadlineExceeded) {
    const message =
      connect.cause === undefined ? connect.rawMessage : 'the host agent did not answer in time';
    return new ThawError('timeout', message, { cause: error });
  }
  if (connect.cause !== undefined || connect.code === Code.DataLoss) {
    return new ThawError('unavailable', 'the host agent cannot be reached', { cause: error });
  }
  for (const kind of Object.keys(ERROR_KINDS) as ErrorKind[]) {
    if (codeOf(kind) === connect.code) return new ThawError(kind, connect.rawMessage, { cause: error });
  }
  return new ThawError('agent_error', connect.rawMessage, { cause: error });
}
