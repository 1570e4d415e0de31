/** Files of a sandbox, streamed both ways. */
import { type Connection, sandboxPath, send } from './http.ts';

export type FileContent = Uint8Array | string | AsyncIterable<Uint8Array>;

export interface FileOptions {
  user?: string | undefined;
  signal?: AbortSignal | undefined;
}

const BOUNDARY = '----thaw-5f2b1c9e7d3a4b60';

/** Writes a guest file. If `content` fails halfway, so does the call, and the guest is told that the file is not complete. */
export async function writeFile(
  to: Connection,
  sandboxId: string,
  path: string,
  content: FileContent,
  options: FileOptions = {},
): Promise<void> {
  // A boundary that the content could contain would cut the file there.
  const boundary = `${BOUNDARY}${crypto.randomUUID()}`;
  const body = ReadableStream.from(form(boundary, path, content, options.user));
  const response = await send(to, 'POST', `${sandboxPath(sandboxId)}/files/stream/write`, {
    body,
    headers: { 'Content-Type': `multipart/form-data; boundary=${boundary}` },
    signal: options.signal,
  });
  await response.body?.cancel();
}

/** The bytes of a guest file as they come; the stream fails if the transfer breaks. */
export async function readFile(
  to: Connection,
  sandboxId: string,
  path: string,
  options: FileOptions = {},
): Promise<ReadableStream<Uint8Array>> {
  const response = await send(to, 'POST', `${sandboxPath(sandboxId)}/files/stream/read`, {
    json: { path, user: options.user },
    signal: options.signal,
  });
  return response.body ?? new ReadableStream({ start: (controller) => controller.close() });
}

async function* form(
  boundary: string,
  path: string,
  content: FileContent,
  user?: string,
): AsyncGenerator<Uint8Array> {
  const bytes = (text: string): Uint8Array => Buffer.from(text);
  const field = (name: string, value: string) =>
    bytes(`--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`);
  yield field('path', path);
  if (user !== undefined) yield field('user', user);
  yield bytes(
    `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n` +
      'Content-Type: application/octet-stream\r\n\r\n',
  );
  if (typeof content === 'string') yield bytes(content);
  else if (content instanceof Uint8Array) yield content;
  else yield* content;
  yield bytes(`\r\n--${boundary}--\r\n`);
}
