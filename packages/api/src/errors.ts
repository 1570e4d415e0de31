/**
 * The one catalogue of errors. A kind says what the caller can do next; it maps once to HTTP and once to Connect.
 * Messages are written for the caller; causes stay in the log.
 */
import type { Code } from '@connectrpc/connect';
import { z } from 'zod';

interface Mapping {
  http: number;
  /** By name: clients of the REST API load no Connect. */
  connect: keyof typeof Code;
}

export const ERROR_KINDS = {
  invalid_request: { http: 400, connect: 'InvalidArgument' },
  unauthenticated: { http: 401, connect: 'Unauthenticated' },
  forbidden: { http: 403, connect: 'PermissionDenied' },
  not_found: { http: 404, connect: 'NotFound' },
  invalid_state: { http: 409, connect: 'FailedPrecondition' },
  already_exists: { http: 409, connect: 'AlreadyExists' },
  conflict: { http: 409, connect: 'Aborted' },
  too_large: { http: 413, connect: 'OutOfRange' },
  exhausted: { http: 429, connect: 'ResourceExhausted' },
  internal: { http: 500, connect: 'Internal' },
  not_implemented: { http: 501, connect: 'Unimplemented' },
  agent_error: { http: 502, connect: 'Unknown' },
  unavailable: { http: 503, connect: 'Unavailable' },
  timeout: { http: 504, connect: 'DeadlineExceeded' },
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

/** The body of every answer that is an error. */
export const ErrorBody = z.object({
  error: z.object({
    code: z.enum(Object.keys(ERROR_KINDS) as [ErrorKind, ...ErrorKind[]]),
    message: z.string(),
  }),
});
export type ErrorBody = z.infer<typeof ErrorBody>;

/** What a caller may know of anything that was thrown. */
export function told(thrown: unknown): ErrorBody['error'] {
  if (thrown instanceof ThawError) return { code: thrown.kind, message: thrown.message };
  return { code: 'internal', message: 'something went wrong inside' };
}

/** The first kind of that HTTP status. */
export function kindOfStatus(status: number): ErrorKind | undefined {
  return (Object.keys(ERROR_KINDS) as ErrorKind[]).find((kind) => ERROR_KINDS[kind].http === status);
}

export function isErrorKind(value: string): value is ErrorKind {
  return Object.hasOwn(ERROR_KINDS, value);
}
