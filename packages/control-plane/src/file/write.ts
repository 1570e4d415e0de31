/** Files into a guest: buffered up to a limit, fields in any order; or streamed, `path` first, without a limit. */
import { ThawError } from '@thaw/api';
import type { FastifyRequest } from 'fastify';
import type { WritePart } from '../host/agent.ts';
import type { Plane } from '../plane.ts';
import { checkEnter, enter } from '../sandbox/enter.ts';
import { type UploadPart, uploadParts } from './parts.ts';

export const BUFFERED_BYTES_MAX = 100 * 1024 * 1024;
/** Of all buffered uploads together. */
const BUFFERED_BYTES_TOTAL = 4 * BUFFERED_BYTES_MAX;
const CHUNK_BYTES = 64 * 1024;

let bufferedBytes = 0;

/** Nothing reaches the guest before the whole form did. */
export async function writeBuffered(
  plane: Plane,
  teamId: string,
  id: string,
  request: FastifyRequest,
): Promise<void> {
  await checkEnter(plane, teamId, id);
  if (Number(request.headers['content-length'] ?? 0) > BUFFERED_BYTES_MAX) throw tooLarge();
  const fields: { path?: string; user?: string } = {};
  let content: Buffer[] | undefined;
  let held = 0;
  try {
    for await (const part of uploadParts(request, BUFFERED_BYTES_MAX)) {
      if (part.name !== 'file') {
        fields[part.name] = part.value;
        continue;
      }
      if (content) throw new ThawError('invalid_request', 'file: only one at a time');
      content = [];
      for await (const chunk of part.content) {
        held += chunk.length;
        bufferedBytes += chunk.length;
        if (held > BUFFERED_BYTES_MAX) throw tooLarge();
        if (bufferedBytes > BUFFERED_BYTES_TOTAL) {
          throw new ThawError('exhausted', 'too many uploads at once: try again, or use files/stream/write');
        }
        content.push(chunk);
      }
    }
    if (fields.path === undefined) throw new ThawError('invalid_request', 'path: missing');
    if (!content) throw new ThawError('invalid_request', 'file: missing');
    await send(plane, teamId, id, { ...fields, path: fields.path }, content);
  } finally {
    bufferedBytes -= held;
  }
}

/** Bytes go on to the guest as they come; the host is told that the file is complete only when the form is. */
export async function writeStream(
  plane: Plane,
  teamId: string,
  id: string,
  request: FastifyRequest,
): Promise<void> {
  await checkEnter(plane, teamId, id);
  const parts = uploadParts(request, Number.POSITIVE_INFINITY);
  const fields: { path?: string; user?: string } = {};
  for await (const part of parts) {
    if (part.name !== 'file') {
      fields[part.name] = part.value;
      continue;
    }
    if (fields.path === undefined) {
      throw new ThawError('invalid_request', 'path: must come before file in a streamed upload');
    }
    await send(plane, teamId, id, { ...fields, path: fields.path }, followed(part.content, parts));
    return;
  }
  throw new ThawError('invalid_request', `${fields.path === undefined ? 'path' : 'file'}: missing`);
}

/** The bytes of `content`, if the form ends after them: a field that came too late would be passed over. */
async function* followed(
  content: AsyncIterable<Buffer>,
  parts: AsyncGenerator<UploadPart>,
): AsyncGenerator<Buffer> {
  yield* content;
  const late = await parts.next();
  if (!late.done) {
    throw new ThawError('invalid_request', `${late.value.name}: must come before file in a streamed upload`);
  }
}

async function send(
  plane: Plane,
  teamId: string,
  id: string,
  to: { path: string; user?: string },
  content: Iterable<Buffer> | AsyncIterable<Buffer>,
): Promise<void> {
  using _ = await enter(plane, teamId, id);
  await plane.host.writeFile(writeParts(id, to, content));
}

async function* writeParts(
  id: string,
  to: { path: string; user?: string },
  content: Iterable<Buffer> | AsyncIterable<Buffer>,
): AsyncGenerator<WritePart> {
  yield { content: { case: 'meta', value: { sandboxId: id, path: to.path, user: to.user ?? '' } } };
  for await (const chunk of content) {
    for (let start = 0; start < chunk.length; start += CHUNK_BYTES) {
      yield { content: { case: 'chunk', value: chunk.subarray(start, start + CHUNK_BYTES) } };
    }
  }
  yield { content: { case: 'complete', value: true } };
}

function tooLarge(): ThawError {
  return new ThawError('too_large', 'at most 100 MiB here, use files/stream/write');
}
