/** The HTTP server: one place for authentication, bodies, errors, and the log line of each request. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import multipart from '@fastify/multipart';
import websocket from '@fastify/websocket';
import { type ErrorKind, ThawError } from '@thaw/api';
import fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyServerOptions,
  LogController,
  type RawServerDefault,
} from 'fastify';
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Logger } from 'pino';
import type { Caller, VerifyKey } from '../auth/key.ts';
import { e2bErrorBody, forbidsRetry, isE2bPath } from '../e2b/errors.ts';
import { countRequest } from '../metrics/metrics.ts';
import { errorBody, toThawError } from './errors.ts';
import { parseJson } from './json.ts';
import { methodsOf, type RoutePattern } from './methods.ts';
import { describeRoutes } from './openapi.ts';
import { type CurrentRequest, currentRequest, duringRequest, REQUEST_ID, requestId } from './request.ts';
import type { TlsMaterial } from './tls.ts';

export type App = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  ZodTypeProvider
>;

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Answers without a key. */
    open?: boolean;
    /** A WebSocket that may send its key as the first message. */
    keyInFirstMessage?: boolean;
  }
  interface FastifyInstance {
    /** Every route there is. */
    patterns: readonly RoutePattern[];
  }
  interface FastifyRequest {
    /** Empty on open routes, and until the first message where the key comes with that. */
    teamId: string;
    /** Whose key it is; undefined where `teamId` is empty. */
    caller: Caller | undefined;
    /** What is known of it while it is answered. */
    current: CurrentRequest | undefined;
    /** The kind of the error that it is answered with. */
    refusal: ErrorKind | undefined;
    /** It has its line in the audit log. */
    recorded: boolean;
  }
}

export const JSON_BYTES_MAX = 1024 * 1024;
const HEADERS_TIMEOUT_MS = 30_000;
const PEER_CHECK_MS = 30_000;
/** The actor of a request without a key. */
export const NOBODY = 'nobody';
const MESSAGE_BYTES_MAX = 1024 * 1024;

/** Serves HTTPS where `tls` is given. `trustedProxies` (addresses, ranges) are believed where a request came from. */
export async function buildApp(
  log: Logger,
  verifyKey: VerifyKey,
  tls?: TlsMaterial,
  trustedProxies: readonly string[] = [],
): Promise<App> {
  const app = fastify({
    trustProxy: trustedProxies.length > 0 && [...trustedProxies],
    ...(tls && { https: { ...tls, minVersion: 'TLSv1.2' } }),
    loggerInstance: log as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: requestId,
    // Each line names the request by itself, also those that are not the request's own logger's.
    childLoggerFactory: (logger: FastifyBaseLogger) => logger,
    bodyLimit: JSON_BYTES_MAX,
    forceCloseConnections: 'idle',
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 256 },
    frameworkErrors: (error, request, reply) => {
      const known = toThawError(error);
      request.log.info({ err: error, request_id: request.id }, 'a request could not be routed');
      reply.header(REQUEST_ID, request.id);
      void sendError(reply as FastifyReply, request.url, known);
    },
    clientErrorHandler: refuseMalformed,
  } as FastifyServerOptions).withTypeProvider<ZodTypeProvider>();
  app.server.headersTimeout = HEADERS_TIMEOUT_MS;
  mindConnections(app, tls ? 'secureConnection' : 'connection');
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  // The type of a JSON body is not checked: `curl -d` calls everything a form. Multipart has its own parser.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, parseJson);
  await app.register(multipart, { throwFileSizeLimit: true });
  await app.register(websocket, {
    options: { maxPayload: MESSAGE_BYTES_MAX },
    errorHandler: (error, socket, request) => {
      request.log.info({ err: error, request_id: request.id }, 'a WebSocket broke');
      socket.terminate();
    },
    preClose(done) {
      for (const client of this.websocketServer.clients) client.close(1001, 'shutting down');
      this.websocketServer.close(() => done());
    },
  });

  app.decorateRequest('teamId', '');
  app.decorateRequest('caller', undefined);
  app.decorateRequest('current', undefined);
  app.decorateRequest('refusal', undefined);
  app.decorateRequest('recorded', false);
  app.addHook('onRequest', async (request, reply) => {
    reply.header(REQUEST_ID, request.id);
    const { open, keyInFirstMessage } = request.routeOptions.config;
    if (open) return;
    const key = keyOf(request.headers);
    if (key === undefined && keyInFirstMessage && request.ws) return;
    request.caller = await requireCaller(verifyKey, key);
    request.teamId = request.caller.teamId;
  });
  app.addHook('preHandler', (request, _reply, done) => {
    request.current = { id: request.id, actor: request.caller?.prefix ?? NOBODY };
    duringRequest(request.current, done);
  });
  app.addHook('onResponse', async (request, reply) => {
    const { id, method, url } = request;
    const { statusCode: status, elapsedTime } = reply;
    countRequest(method, request.routeOptions.url, status, elapsedTime);
    const ms = Math.round(elapsedTime);
    request.log.info({ request_id: id, method, url, status, ms }, 'request');
  });
  answerErrors(app);
  await describeRoutes(app);
  return app;
}

/**
 * A peer that is gone without a word is noticed, also where nothing is sent. Clients open connections ahead of need; the
 * server does not count those as idle, and would wait for them at its end.
 */
function mindConnections(app: App, opened: 'connection' | 'secureConnection'): void {
  const unused = new Set<Socket>();
  app.server.on(opened, (socket: Socket) => {
    socket.setKeepAlive(true, PEER_CHECK_MS);
    unused.add(socket);
    socket.once('close', () => unused.delete(socket));
  });
  for (const used of ['request', 'upgrade'])
    app.server.on(used, ({ socket }: IncomingMessage) => unused.delete(socket));
  app.addHook('preClose', async () => {
    for (const socket of unused) socket.destroy();
  });
}

export function keyOf(headers: IncomingMessage['headers']): string | undefined {
  const header = headers['x-api-key'];
  if (typeof header === 'string') return header;
  return /^Bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1];
}

export async function requireCaller(verifyKey: VerifyKey, key: string | undefined): Promise<Caller> {
  const caller = key === undefined ? undefined : await verifyKey(key);
  if (caller === undefined) {
    const wrong =
      key === undefined ? 'no API key: send X-API-Key or Authorization: Bearer' : 'the API key is not valid';
    throw new ThawError('unauthenticated', wrong);
  }
  // The key of a WebSocket may come late.
  const request = currentRequest();
  if (request) request.actor = caller.prefix;
  return caller;
}

function answerErrors(app: App): void {
  const patterns: RoutePattern[] = [];
  app.decorate('patterns', patterns);
  app.addHook('onRoute', (route) => {
    patterns.push({ url: route.url, methods: [route.method].flat() });
  });
  app.setNotFoundHandler((request) => {
    const path = request.url.split('?')[0] ?? '';
    const methods = methodsOf(patterns, path);
    if (methods.length === 0) throw new ThawError('not_found', `no such path: ${path}`);
    throw new ThawError('invalid_request', `${path} answers ${methods.join(', ')} only`, { status: 405 });
  });
  app.setErrorHandler((error, request, reply) => {
    const known = toThawError(error);
    request.refusal = known.kind;
    const level = known.status >= 500 ? 'error' : 'info';
    const { id, method, url } = request;
    request.log[level]({ request_id: id, err: error, method, url }, 'a request failed');
    // A stream that broke after its headers were sent: only a cut connection tells the client.
    if (reply.raw.headersSent) return void reply.raw.destroy();
    return sendError(reply, url, known);
  });
}

/** In the shape of the API that was asked. */
function sendError(reply: FastifyReply, url: string, error: ThawError): FastifyReply {
  const isE2b = isE2bPath(url);
  if (isE2b && forbidsRetry(error)) reply.header('Should-Retry', 'false');
  return reply
    .code(error.status)
    .type('application/json; charset=utf-8')
    .serializer(JSON.stringify)
    .send(isE2b ? e2bErrorBody(error) : errorBody(error));
}

/** What is not even HTTP gets an answer in the same shape. */
function refuseMalformed(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
  const line =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? '431 Request Header Fields Too Large'
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? '408 Request Timeout'
        : '400 Bad Request';
  const body = JSON.stringify(errorBody(new ThawError('invalid_request', 'the request is not valid HTTP')));
  socket.end(
    `HTTP/1.1 ${line}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
