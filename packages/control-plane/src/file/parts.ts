/** The fields of an upload: `path`, `user`, and the bytes in `file`. */
import type { Readable } from 'node:stream';
import type { Multipart } from '@fastify/multipart';
import { GuestPath, GuestUser, ThawError } from '@thaw/api';
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';

const FIELD_BYTES_MAX = 16 * 1024;
const PARTS_MAX = 8;

export type UploadPart =
  | { name: 'path' | 'user'; value: string }
  | { name: 'file'; content: AsyncIterable<Buffer> };

const FIELDS: Record<string, z.ZodType<string>> = { path: GuestPath, user: GuestUser };

/** In the order they arrive; a `file` must be read to its end before the next part comes. */
export async function* uploadParts(
  request: FastifyRequest,
  fileBytesMax: number,
): AsyncGenerator<UploadPart> {
  if (!request.isMultipart()) throw new ThawError('invalid_request', 'the body must be multipart/form-data');
  const limits = { fileSize: fileBytesMax, fieldSize: FIELD_BYTES_MAX, parts: PARTS_MAX };
  try {
    for await (const part of request.parts({ limits })) yield checked(part);
  } catch (error) {
    // The parser's errors have a status, except when it cannot even begin.
    if (error instanceof ThawError || (error instanceof Error && 'statusCode' in error)) throw error;
    throw new ThawError('invalid_request', 'the body is not a valid form', { cause: error });
  }
}

/** A file's bytes; one that ends before its boundary is an error, never a short file. */
async function* whole(file: Readable): AsyncGenerator<Buffer> {
  try {
    yield* file;
  } catch (error) {
    throw new ThawError('invalid_request', 'the upload broke off', { cause: error });
  }
}

function checked(part: Multipart): UploadPart {
  if (part.type === 'file') {
    if (part.fieldname === 'file') return { name: 'file', content: whole(part.file) };
    throw new ThawError('invalid_request', `${part.fieldname}: not a file of this form`);
  }
  if (part.fieldname === 'file')
    throw new ThawError('invalid_request', 'file: must be sent as a file, with a name');
  const schema = Object.hasOwn(FIELDS, part.fieldname) ? FIELDS[part.fieldname] : undefined;
  if (!schema) throw new ThawError('invalid_request', `${part.fieldname}: not a field of this form`);
  const parsed = schema.safeParse(part.value);
  if (part.valueTruncated || !parsed.success) {
    throw new ThawError(
      'invalid_request',
      `${part.fieldname}: ${parsed.error?.issues[0]?.message ?? 'too long'}`,
    );
  }
  return { name: part.fieldname as 'path' | 'user', value: parsed.data };
}
