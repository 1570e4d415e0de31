/** Files of a guest through the guest agent's `/files`, streamed both ways with back-pressure. */
import http from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type ErrorKind, ThawError } from '@thaw/api';
import { GUEST_PORT, type Guest } from './guest.ts';
import { readable } from './refusal.ts';
import { Silence } from './silence.ts';

const ERROR_CHARS_MAX = 16 * 1024;
const BUFFER_BYTES = 256 * 1024;

export interface FilePath {
  /** Absolute, or relative to the user's home. */
  path: string;
  /** Empty: root. */
  user: string;
}

/** The file's bytes. Errors such as a missing file are thrown before the first chunk. */
export async function* read(guest: Guest, file: FilePath, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  using silence = new Silence(guest.patience, signal);
  const request = http.request(options(guest, 'GET', file, silence.signal));
  try {
    silence.expectAnswer();
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      request.on('response', resolve).on('error', reject).end();
    });
    if (response.statusCode !== 200) throw await refused(response);
    for await (const chunk of silence.listen<Uint8Array>(response)) yield chunk;
    if (!response.complete) throw new ThawError('agent_error', 'the transfer broke off');
  } catch (error) {
    throw broken(silence.reason(error));
  } finally {
    request.destroy();
  }
}

/** Writes `chunks` to the file; when they throw, the transfer is cut and the guest reports no success. */
export async function write(
  guest: Guest,
  file: FilePath,
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  using silence = new Silence(guest.patience, signal);
  const request = http.request(options(guest, 'POST', file, silence.signal));
  request.setHeader('content-type', 'application/octet-stream');
  const answered = new Promise<http.IncomingMessage>((resolve, reject) => {
    request.on('response', resolve).on('error', reject);
  });
  try {
    const source = Readable.from(taken(chunks, silence), { objectMode: false, highWaterMark: BUFFER_BYTES });
    // The guest may answer (no space, a directory) before the whole body is sent.
    const sent = pipeline(source, request);
    sent.catch(() => {});
    const response = await Promise.race([answered, sent.then(() => answered)]);
    if (response.statusCode !== 200) throw await refused(response);
    await sent;
  } catch (error) {
    throw broken(silence.reason(error));
  } finally {
    request.destroy();
    // What failed before the request did is already told.
    answered.catch(() => {});
  }
}

/** The guest has to take each chunk within a time, and answer after the last; the sender may be as slow as it likes. */
async function* taken(chunks: AsyncIterable<Uint8Array>, silence: Silence): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    silence.expectMore();
    yield chunk;
    silence.relax();
  }
  silence.expectMore();
}

function options(
  guest: Guest,
  method: string,
  { path, user }: FilePath,
  signal: AbortSignal,
): http.RequestOptions {
  const query = new URLSearchParams({ path, username: user === '' ? 'root' : user });
  return {
    host: guest.host,
    port: GUEST_PORT,
    path: `/files?${query}`,
    method,
    agent: guest.agent,
    signal,
    headers: { ...guest.headers, 'accept-encoding': 'identity' },
  };
}

function kindOf(status: number): ErrorKind {
  switch (status) {
    case 400:
    case 401:
    case 414:
    case 431:
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

async function refused(response: http.IncomingMessage): Promise<ThawError> {
  let text = '';
  let message = 'the guest refused the file';
  try {
    for await (const chunk of response.setEncoding('utf8')) {
      text += chunk;
      if (text.length > ERROR_CHARS_MAX) break;
    }
    message = readable(String((JSON.parse(text) as { message?: unknown }).message ?? message));
  } catch {
    // An answer that is not JSON, or no end, says nothing a caller could use.
  }
  return new ThawError(kindOf(response.statusCode ?? 0), message);
}

function broken(cause: unknown): ThawError {
  return cause instanceof ThawError
    ? cause
    : new ThawError('agent_error', 'the transfer broke off', { cause });
}
