/** Whatever was thrown becomes an error of the catalogue; what is not meant for callers stays in the log. */
import { ThawError } from '@thaw/api';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import { asDatabaseError } from '../db/connect.ts';

export function errorBody(error: ThawError): { error: { code: string; message: string } } {
  return { error: { code: error.kind, message: error.message } };
}

export function toThawError(thrown: unknown): ThawError {
  const error = asDatabaseError(thrown);
  if (error instanceof ThawError) return error;
  if (hasZodFastifySchemaValidationErrors(error)) {
    const issues = error.validation.map(({ instancePath, message }) => ({
      path: instancePath.split('/').filter((part) => part !== ''),
      message: message ?? 'is not valid',
    }));
    return invalid(issues, error.validationContext);
  }
  const status = statusOf(error);
  if (status === 413) return new ThawError('too_large', 'the body is too large', { cause: error });
  if (status !== undefined && status >= 400 && status < 500) {
    // Fastify's and its plugins' own messages: they speak of the request and of nothing else.
    return new ThawError('invalid_request', (error as Error).message, { cause: error });
  }
  return new ThawError('internal', 'something went wrong inside; the log has the details', { cause: error });
}

export interface Issue {
  path: readonly PropertyKey[];
  message: string;
}

/** The first few things that are wrong, each with its field. */
export function invalid(issues: readonly Issue[], where = 'body'): ThawError {
  const lines = issues.slice(0, 3).map((issue) => {
    const field = issue.path.map(String).join('.');
    return `${field === '' ? where : field}: ${issue.message}`;
  });
  return new ThawError('invalid_request', lines.join('; '));
}

function statusOf(error: unknown): number | undefined {
  if (error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number')
    return error.statusCode;
  return undefined;
}
