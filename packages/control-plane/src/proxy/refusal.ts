/**
 * What the proxy answers by itself: clients tell a sandbox that is gone from a port that is closed by the words, so these
 * are the E2B API's. A page for whoever came with a browser.
 */
import { type IncomingHttpHeaders, type ServerResponse, STATUS_CODES } from 'node:http';

interface RefusalBody {
  sandboxId?: string;
  message: string;
  port?: number;
  path?: string;
  code: number;
}

export class Refusal extends Error {
  readonly status: number;
  /** A string is sent as text. */
  readonly body: RefusalBody | string;
  readonly headers: Record<string, string>;

  constructor(
    body: RefusalBody | string,
    status = typeof body === 'string' ? 400 : body.code,
    headers: Record<string, string> = {},
  ) {
    super(typeof body === 'string' ? body : body.message);
    this.name = 'Refusal';
    this.status = status;
    this.body = body;
    this.headers = headers;
  }
}

export const refuse = {
  badRequest: (why: string) => new Refusal(`${why}\n`, 400),
  notFound: (sandboxId: string) =>
    new Refusal({ sandboxId, message: 'The sandbox was not found', code: 502 }),
  closed: (sandboxId: string, port: number) =>
    new Refusal({ sandboxId, message: 'The sandbox is running but port is not open', port, code: 502 }),
  silent: (sandboxId: string, port: number) =>
    new Refusal({
      sandboxId,
      message: 'The sandbox is running but the service at this port gave no valid answer',
      port,
      code: 502,
    }),
  notResumed: (sandboxId: string) =>
    new Refusal({ sandboxId, message: 'The sandbox could not be resumed', code: 502 }),
  traffic: (sandboxId: string) =>
    new Refusal({
      sandboxId,
      message: 'The traffic access token is missing or not valid: send it as e2b-traffic-access-token',
      code: 403,
    }),
  wake: (sandboxId: string) =>
    new Refusal({
      sandboxId,
      message: 'The sandbox is paused, and the access token that would resume it is missing or not valid',
      code: 403,
    }),
  moving: (sandboxId: string) =>
    new Refusal({ sandboxId, message: 'The sandbox is being paused or resumed, try again', code: 409 }),
  /** Not a refusal but leave to ask, as the guest agent gives it: a browser asks for that without any token. */
  preflight: (method: string, headers: string) =>
    new Refusal('', 204, {
      'access-control-allow-methods': method,
      'access-control-allow-headers': headers,
      'access-control-max-age': '600',
    }),
  internalPath: (path: string) => new Refusal({ message: 'not found', path, code: 404 }),
  tooMany: (sandboxId: string | undefined, message: string) =>
    new Refusal({ ...(sandboxId !== undefined && { sandboxId }), message, code: 429 }),
  away: (sandboxId: string) =>
    new Refusal({ sandboxId, message: 'The state of the sandbox is not known now, try again', code: 503 }),
};

export function answer(response: ServerResponse, refusal: Refusal, asked: IncomingHttpHeaders): void {
  const { body, status } = refusal;
  const [type, text] =
    typeof body === 'string'
      ? ['text/plain; charset=utf-8', body]
      : isNavigation(asked)
        ? ['text/html; charset=utf-8', page(status, body)]
        : ['application/json', JSON.stringify(body)];
  // What a guest said may be there already.
  for (const name of response.getHeaderNames()) response.removeHeader(name);
  if (response.req.httpVersionMajor === 1) response.statusMessage = STATUS_CODES[status] ?? '';
  response.sendDate = true;
  response.writeHead(status, {
    ...(status !== 204 && { 'content-type': type, 'content-length': Buffer.byteLength(text) }),
    ...refusal.headers,
    'cache-control': 'no-store',
    // A page's script can tell why it got nothing.
    'access-control-allow-origin': '*',
    'access-control-expose-headers': '*',
  });
  response.end(text);
}

/** Somebody looks at it, it is not a script that asks. */
function isNavigation(asked: IncomingHttpHeaders): boolean {
  if (asked['sec-fetch-mode'] !== undefined) return asked['sec-fetch-mode'] === 'navigate';
  return /\btext\/html\b/.test(asked.accept ?? '') && /^Mozilla\/5\.0 \(/.test(asked['user-agent'] ?? '');
}

const ADVICE: Record<number, string> = {
  403: 'This sandbox takes visitors with a token only.',
  404: 'There is nothing here.',
  409: 'Load this page again in a moment.',
  429: 'Too many visitors at once. Load this page again in a moment.',
  502: 'It may have ended, or it is paused, or nothing in it listens at this port.',
  503: 'Load this page again in a moment.',
};

function page(status: number, { sandboxId, message, port }: RefusalBody): string {
  const where = [sandboxId && `Sandbox ${sandboxId}`, port && `port ${port}`].filter(Boolean).join(', ');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${status} ${escaped(message)}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } p { color: #555; } code { font-size: 0.95em; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } p { color: #aaa; } }
</style>
</head>
<body>
<h1>${escaped(message)}</h1>
<p>${escaped(ADVICE[status] ?? '')}</p>
<p><code>${escaped(where)}</code></p>
</body>
</html>
`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
