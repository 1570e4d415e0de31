/**
 * The one catalogue of errors. A kind says what the caller can do next; it maps once to HTTP and once to Connect.
 * Messages are written for the caller; causes stay in the log.
 */
import { Code, ConnectError } from '@connectrpc/connect';

interface Mapping {
  http: number;
  connect: Code;
}

export const ERROR_KINDS = {
  invalid_request: { http: 400, connect: Code.InvalidArgument },
  unauthenticated: { http: 401, connect: Code.Unauthenticated },
  forbidden: { http: 403, connect: Code.PermissionDenied },
  not_found: { http: 404, connect: Code.NotFound },
  invalid_state: { http: 409, connect: Code.FailedPrecondition },
  already_exists: { http: 409, connect: Code.AlreadyExists },
  conflict: { http: 409, connect: Code.Aborted },
  too_large: { http: 413, connect: Code.OutOfRange },
  exhausted: { http: 429, connect: Code.ResourceExhausted },
  internal: { http: 500, connect: Code.Internal },
  not_implemented: { http: 501, connect: Code.Unimplemented },
  agent_error: { http: 502, connect: Code.Unknown },
  unavailable: { http: 503, connect: Code.Unavailable },
  timeout: { http: 504, connect: Code.DeadlineExceeded },
} as const satisfies Record<string, Mapping>;

export type ErrorKind = keyof typeof ERROR_KINDS;

/** An error whose `kind` and `message` may be shown to a caller; `cause` never leaves the process. */
export class ThawError extends Error {
  readonly kind: ErrorKind;
  /** HTTP status: the kind's own, unless the place that threw it knows a more exact one (405, for instance). */
  readonly status: number;

  constructor(kind: ErrorKind, message: string, options: { cause?: unknown; status?: number } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.name = 'ThawError';
    this.kind = kind;
    this.status = options.status ?? ERROR_KINDS[kind].http;
  }
}

export function isErrorKind(value: string): value is ErrorKind {
  return Object.hasOwn(ERROR_KINDS, value);
}

export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  if (error instanceof ThawError) return new ConnectError(error.message, ERROR_KINDS[error.kind].connect);
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
  for (const [kind, mapping] of Object.entries(ERROR_KINDS)) {
    if (mapping.connect === connect.code) {
      return new ThawError(kind as ErrorKind, connect.rawMessage, { cause: error });
    }
  }
  return new ThawError('agent_error', connect.rawMessage, { cause: error });
}
