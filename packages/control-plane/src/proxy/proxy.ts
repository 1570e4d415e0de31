/**
 * The data plane: clients' traffic to guests' ports, by `{port}-{sandbox}.{domain}` or by headers. Compatible with the
 * E2B SDKs. It decides by what it has in memory, wakes what may be woken, and passes on bytes.
 */
import type { Server as HttpsServer } from 'node:https';
import { throughOutage } from '../db/connect.ts';
import { readTls, renewTls, type TlsFiles } from '../http/tls.ts';
import type { Plane } from '../plane.ts';
import { abort } from './client.ts';
import { Directory } from './directory.ts';
import { Lines } from './line.ts';
import { type Handlers, type Listener, listen } from './listen.ts';
import { serveRequest, serveTunnel } from './serve.ts';
import { Signatures } from './signatures.ts';
import { Wakes } from './wake.ts';

export interface ProxyConfig {
  /** In clear text; undefined: not at all. */
  listen: { host: string; port: number } | undefined;
  /** By TLS, with a certificate for `*.{domain}`. */
  tlsListen: { host: string; port: number } | undefined;
  tls: TlsFiles | undefined;
}

export interface ProxyOptions {
  /** The database's server, if it can tell of changes. */
  databaseUrl: string | undefined;
  limits?: Partial<ProxyLimits> | undefined;
}

export interface ProxyLimits {
  /** Clients' connections to each listener. */
  connections: number;
  /** Requests and tunnels at once. */
  open: number;
  openPerSandbox: number;
  /** Requests that wait for sandboxes to be resumed. */
  waiting: number;
}

const LIMITS: ProxyLimits = { connections: 10_000, open: 10_000, openPerSandbox: 1_000, waiting: 1_000 };
/** What is under way at the end may take so long; streams have no end of their own. */
const END_WITHIN_MS = 5_000;

export interface DataPlane extends AsyncDisposable {
  /** `http://host:port` as bound. */
  url: string | undefined;
  tlsUrl: string | undefined;
}

export async function startProxy(
  plane: Plane,
  config: ProxyConfig,
  options: ProxyOptions,
): Promise<DataPlane> {
  if (config.listen === undefined && config.tlsListen === undefined)
    return { url: undefined, tlsUrl: undefined, async [Symbol.asyncDispose]() {} };
  await using undo = new AsyncDisposableStack();
  const limits = { ...LIMITS, ...options.limits };
  const lines = undo.use(new Lines({ perSandbox: limits.openPerSandbox, all: limits.open }));
  const following = { db: plane.db, log: plane.log, onLeft: (id: string) => lines.left(id) };
  const directory = undo.use(await throughOutage(() => Directory.open(following, options.databaseUrl)));
  const wakes = new Wakes(plane, limits.waiting);
  const signatures = new Signatures(() => directory.all());
  const gate = { plane, directory, lines, wakes, signatures };
  const handlers: Handlers = {
    request: (request, response, expects) =>
      serveRequest(gate, request, response, expects).catch((error) => {
        plane.log.error({ err: error }, 'the proxy could not answer');
        abort(response);
      }),
    tunnel: (request, socket, head) =>
      serveTunnel(gate, request, socket, head).catch((error) => {
        plane.log.error({ err: error }, 'the proxy could not answer');
        socket.destroy();
      }),
  };
  const listeners: Listener[] = [];
  undo.defer(() => close(listeners));
  const open = { connectionsMax: limits.connections };
  let url: string | undefined;
  let tlsUrl: string | undefined;
  if (config.listen !== undefined) {
    const plain = await listen(handlers, { ...open, at: config.listen, setting: 'THAW_PROXY_LISTEN' });
    listeners.push(plain);
    url = `http://${hostPort(config.listen.host, plain.port)}`;
  }
  if (config.tlsListen !== undefined && config.tls !== undefined) {
    const tls = await readTls(config.tls);
    const secure = await listen(handlers, {
      ...open,
      at: config.tlsListen,
      setting: 'THAW_PROXY_TLS_LISTEN',
      tls,
    });
    listeners.push(secure);
    undo.use(renewTls(secure.server as HttpsServer, config.tls, plane.log));
    tlsUrl = `https://${hostPort(config.tlsListen.host, secure.port)}`;
  }
  const ended = undo.move();
  return { url, tlsUrl, [Symbol.asyncDispose]: () => ended.disposeAsync() };
}

function hostPort(host: string, port: number): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

async function close(listeners: readonly Listener[]): Promise<void> {
  const cut = setTimeout(() => {
    for (const listener of listeners) listener.cut();
  }, END_WITHIN_MS);
  await Promise.all(listeners.map((listener) => listener.close()));
  clearTimeout(cut);
}
