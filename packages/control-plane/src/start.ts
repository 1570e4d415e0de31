/** The control plane's start-up list; what it returns shuts down the same list backwards. */
import type { Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import { Audit } from './audit/audit.ts';
import { keepAuditBounded } from './audit/retention.ts';
import { Keyring } from './auth/key.ts';
import type { Config } from './config.ts';
import { connectDatabase, type Database, throughOutage } from './db/connect.ts';
import { migrate } from './db/migrations.ts';
import { announcePresence, newPlaneId } from './db/presence.ts';
import { History } from './event/history.ts';
import { observed } from './event/observe.ts';
import { originCheck } from './exec/origin.ts';
import { connectHost, type HostAgent } from './host/agent.ts';
import { claimHost } from './host/claim.ts';
import { type App, buildApp } from './http/app.ts';
import { addRoutes } from './http/routes.ts';
import { readTls, renewTls } from './http/tls.ts';
import type { Plane } from './plane.ts';
import { type DataPlane, type ProxyLimits, startProxy } from './proxy/proxy.ts';
import { startReconcile } from './reconcile/loop.ts';
import { Activity } from './sandbox/activity.ts';
import { startClock } from './sandbox/clock.ts';
import { InFlight } from './sandbox/in-flight.ts';

const HOST_ID = 'default';
const VERBS_END_WITHIN_MS = 30_000;
const REQUESTS_END_WITHIN_MS = 30_000;
const PING_EVERY_MS = 20_000;

export interface ControlPlane extends AsyncDisposable {
  /** `http://host:port` as bound, or `https`. */
  url: string;
  /** Where it passes traffic on to guests. */
  proxy: Pick<DataPlane, 'url' | 'tlsUrl'>;
  app: App;
  plane: Plane;
}

export interface StartOptions {
  pingEveryMs?: number;
  /** For tests: a database in this process, used by this control plane alone; closed by whoever made it. */
  database?: Database | undefined;
  /** For tests: a host that is not reached by a socket. */
  host?: HostAgent;
  proxyLimits?: Partial<ProxyLimits>;
}

export async function startControlPlane(
  config: Config,
  log: Logger,
  options: StartOptions = {},
): Promise<ControlPlane> {
  await using undo = new AsyncDisposableStack();

  const { database } = options;
  const db: Database = database ?? connectDatabase(config.databaseUrl, log);
  if (database === undefined) undo.defer(() => db.destroy());
  await throughOutage(() => migrate(db));
  const { identity, claimDatabase } = config;
  if (identity !== undefined) await claimHost(db, HOST_ID, identity, claimDatabase);
  const id = newPlaneId();
  if (database === undefined)
    undo.use(await throughOutage(() => announcePresence(config.databaseUrl, id, log)));

  const history = new History(db, log);
  undo.defer(() => history.close());
  const audit = new Audit(db, log);
  undo.defer(() => audit.close());
  const host = observed(options.host ?? connectHost(config.agentSocket, log), history);
  const activity = new Activity(db, log);
  undo.defer(() => activity.close());
  const verbs = new InFlight();
  const templateVerbs = new InFlight();
  const parts = { verbs, templateVerbs, activity, history, audit };
  const plane: Plane = { id, db, host, hostId: HOST_ID, log, domain: config.domain ?? null, ...parts };
  undo.defer(async () => {
    const left = [
      ...(await templateVerbs.drain(VERBS_END_WITHIN_MS)),
      ...(await verbs.drain(VERBS_END_WITHIN_MS)),
    ];
    if (left.length > 0)
      log.warn({ left }, 'verbs were still under way at the end; the next start settles them');
  });

  undo.defer(startReconcile(plane, config));
  undo.defer(startClock(plane, config.clockMs));
  undo.defer(keepAuditBounded(plane, config.audit));

  const keyring = new Keyring(db);
  const tls = config.tls && (await readTls(config.tls));
  const app = await buildApp(log, keyring.verify, tls, config.trustedProxies);
  undo.defer(async () => {
    const cut = setTimeout(() => app.server.closeAllConnections(), REQUESTS_END_WITHIN_MS);
    await app.close();
    clearTimeout(cut);
  });
  addRoutes(app, plane, {
    verifyKey: keyring.verify,
    forgetKey: (keyId) => keyring.forget(keyId),
    checkOrigin: originCheck(config),
    pingEveryMs: options.pingEveryMs ?? PING_EVERY_MS,
  });
  if (config.tls !== undefined) undo.use(renewTls(app.server as unknown as Server, config.tls, log));
  const proxy = undo.use(
    await startProxy(plane, config.proxy, {
      databaseUrl: database === undefined ? config.databaseUrl : undefined,
      limits: options.proxyLimits,
    }),
  );
  await app.listen({ host: config.listen.host, port: config.listen.port });

  const { port } = app.server.address() as AddressInfo;
  const { host: name } = config.listen;
  const close = undo.move();
  return {
    url: `${config.tls === undefined ? 'http' : 'https'}://${name.includes(':') ? `[${name}]` : name}:${port}`,
    proxy,
    app,
    plane,
    [Symbol.asyncDispose]: () => close.disposeAsync(),
  };
}
