/** Files of a guest through the guest agent's `/files`, streamed both ways with back-pressure. */
import http from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type ErrorKind, ThawError } from '@thaw/api';
import { GUEST_PORT, type Guest } from './guest.ts';

const ERROR_BYTES_MAX = 16 * 1024;

function options(guest: Guest, method: string, path: string, user: string): http.RequestOptions {
  const query = new URLSearchParams({ path, username: user === '' ? 'root' : user });
  return {
    host: guest.host,
    port: GUEST_PORT,
    path: `/files?${query}`,
    method,
    agent: guest.agent,
    headers: { ...guest.headers, 'accept-encoding': 'identity' },
  };
}

function kindOf(status: number): ErrorKind {
  switch (status) {
    case 400:
    case 401:
      return 'invalid_request';
    case 404:
      return 'not_found';
    case 507:
      return 'exhausted';
    case 503:
      return 'unavailable';
    default:
      return 'agent_error';
  }
}

async function refusal(response: http.IncomingMessage): Promise<ThawError> {
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) {
    text += chunk;
    if (text.length > ERROR_BYTES_MAX) break;
  }
  const status = response.statusCode ?? 0;
  let message = 'the guest refused the file';
  try {
    message = String((JSON.parse(text) as { message?: unknown }).message ?? message);
  } catch {
    // An answer that is not JSON says nothing a caller could use.
  }
  return new ThawError(kindOf(status), message);
}

function broken(cause: unknown): ThawError {
  return cause instanceof ThawError
    ? cause
    : new ThawError('agent_error', 'the transfer broke off', { cause });
}

/** The file's bytes. Errors such as a missing file are thrown before the first chunk. */
export async function* read(guest: Guest, path: string, user: string): AsyncGenerator<Uint8Array> {
  const request = http.request(options(guest, 'GET', path, user));
  try {
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      request.on('response', resolve).on('error', reject).end();
    });
    if (response.statusCode !== 200) throw await refusal(response);
    for await (const chunk of response) yield chunk as Uint8Array;
    if (!response.complete) throw new ThawError('agent_error', 'the transfer broke off');
  } catch (error) {
    throw broken(error);
  } finally {
    request.destroy();
  }
}

/** Writes `chunks` to the file; when they throw, the transfer is cut and the guest reports no success. */
export async function write(
  guest: Guest,
  path: string,
  user: string,
  chunks: AsyncIterable<Uint8Array>,
): Promise<void> {
  const request = http.request(options(guest, 'POST', path, user));
  request.setHeader('content-type', 'application/octet-stream');
  const answered = new Promise<http.IncomingMessage>((resolve, reject) => {
    request.on('response', resolve).on('error', reject);
  });
  try {
    // The guest may answer (no space, a directory) before the whole body is sent.
    const sent = pipeline(Readable.from(chunks, { objectMode: false, highWaterMark: 256 * 1024 }), request);
    sent.catch(() => {});
    const response = await Promise.race([answered, sent.then(() => answered)]);
    if (response.statusCode !== 200) throw await refusal(response);
    await sent;
    response.resume();
  } catch (error) {
    throw broken(error);
  } finally {
    request.destroy();
  }
}
