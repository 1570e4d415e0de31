/**
 * Errors as clients of the E2B API read them: `{"code": <the HTTP status>, "message", "error_code"?}`. Some of them
 * decide by the status, some by the body's `code`: both are always there, and equal.
 */
import { type ErrorKind, ThawError } from '@thaw/api';

const E2B_PATH = /^\/(?:sandboxes|templates|snapshots|volumes|volumecontent|secrets|teams|v2|v3)(?:[/?]|$)/;

/** Whether a request is one of the E2B API, known or not. */
export function isE2bPath(url: string): boolean {
  return E2B_PATH.test(url);
}

/** One that clients tell apart by a word besides its status. */
export class E2bError extends ThawError {
  readonly errorCode: string;

  constructor(kind: ErrorKind, errorCode: string, message: string, options: { cause?: unknown } = {}) {
    super(kind, message, options);
    this.name = 'E2bError';
    this.errorCode = errorCode;
  }
}

export interface E2bErrorBody {
  code: number;
  message: string;
  error_code?: string;
}

export function e2bErrorBody(error: ThawError): E2bErrorBody {
  return {
    code: error.status,
    message: error.message,
    ...(error instanceof E2bError && { error_code: error.errorCode }),
  };
}

/**
 * Clients repeat 429, 502, 503 and 504 by themselves, creates too. A quota that is used up, a guest that makes no sense
 * and a verb that took too long are not better a second later; what is unavailable may be.
 */
export function forbidsRetry({ status }: ThawError): boolean {
  return status === 429 || status === 502 || status === 504;
}
