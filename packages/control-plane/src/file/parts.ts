/** The fields of an upload: `path`, `user`, and the bytes in `file`. */
import type { Readable } from 'node:stream';
import { GuestPath, GuestUser, ThawError } from '@thaw/api';
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { invalid } from '../http/errors.ts';

const FIELD_BYTES_MAX = 16 * 1024;
const PARTS_MAX = 8;

export type UploadPart = { name: 'path' | 'user'; value: string } | { name: 'file'; content: Readable };

const FIELDS: Record<string, z.ZodType<string>> = { path: GuestPath, user: GuestUser };

/** In the order they arrive; a `file` must be read to its end before the next part comes. */
export async function* uploadParts(
  request: FastifyRequest,
  fileBytesMax: number,
): AsyncGenerator<UploadPart> {
  if (!request.isMultipart()) throw new ThawError('invalid_request', 'the body must be multipart/form-data');
  const limits = { fileSize: fileBytesMax, fieldSize: FIELD_BYTES_MAX, parts: PARTS_MAX };
  for await (const part of request.parts({ limits })) {
    if (part.type === 'file') {
      if (part.fieldname === 'file') yield { name: 'file', content: part.file };
      else throw new ThawError('invalid_request', `${part.fieldname}: not a file of this form`);
      continue;
    }
    const schema = Object.hasOwn(FIELDS, part.fieldname) ? FIELDS[part.fieldname] : undefined;
    if (part.fieldname === 'file')
      throw new ThawError('invalid_request', 'file: must be sent as a file, with a name');
    if (!schema) throw new ThawError('invalid_request', `${part.fieldname}: not a field of this form`);
    const parsed = schema.safeParse(part.value);
    if (!parsed.success || part.valueTruncated) throw invalid(parsed.error?.issues ?? [], part.fieldname);
    yield { name: part.fieldname as 'path' | 'user', value: parsed.data };
  }
}
