/** One request to `/v1`: the key, the error shape, nothing retried. */
import { isErrorKind, kindOfStatus, ThawError } from '@thaw/api';

export interface Connection {
  /** `http://127.0.0.1:8080`, without a path. */
  url: string;
  key: string;
  fetch: typeof fetch;
}

export interface Request {
  query?: Record<string, string | number | undefined>;
  /** Sent as JSON. */
  json?: unknown;
  body?: RequestInit['body'];
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** A body that might have to be sent again, after a redirect, is kept whole by Node's fetch: a stream must not be. */
const SENT_ONCE = { redirect: 'error', window: null } as const;

export const sandboxPath = (id: string): string => `/v1/sandboxes/${encodeURIComponent(id)}`;

export async function json<T>(to: Connection, method: string, path: string, request?: Request): Promise<T> {
  return (await send(to, method, path, request)).json() as Promise<T>;
}

export async function send(
  to: Connection,
  method: string,
  path: string,
  request: Request = {},
): Promise<Response> {
  const url = new URL(path, to.url);
  for (const [name, value] of Object.entries(request.query ?? {})) {
    if (value !== undefined) url.searchParams.set(name, String(value));
  }
  const body = request.json === undefined ? request.body : JSON.stringify(request.json);
  const init = {
    method,
    headers: {
      'X-API-Key': to.key,
      ...(request.json !== undefined && { 'Content-Type': 'application/json' }),
      ...request.headers,
    },
    ...(body != null && { body }),
    ...(body instanceof ReadableStream && { duplex: 'half', ...SENT_ONCE }),
    ...(request.signal && { signal: request.signal }),
  };
  let response: Response;
  try {
    response = await to.fetch(url, init as RequestInit);
  } catch (error) {
    if (request.signal?.aborted) throw error;
    throw new ThawError('unavailable', `Thaw does not answer at ${to.url}`, { cause: error });
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

/** The error that an answer carries; an answer of something else than Thaw gets the kind of its status. */
async function errorOf(response: Response): Promise<ThawError> {
  const body: unknown = await response.json().catch(() => undefined);
  const { code, message } =
    (body as { error?: { code?: unknown; message?: unknown } } | undefined)?.error ?? {};
  const { status } = response;
  if (typeof code === 'string' && isErrorKind(code)) return new ThawError(code, String(message), { status });
  return new ThawError(kindOfStatus(status) ?? 'agent_error', `HTTP ${status}`, { status });
}
