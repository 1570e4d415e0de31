/** The control plane's start-up list; what it returns shuts down the same list backwards. */
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import { keyVerifier } from './auth/key.ts';
import type { Config } from './config.ts';
import { connectDatabase, type Database, throughOutage } from './db/connect.ts';
import { migrate } from './db/migrations.ts';
import { originCheck } from './exec/origin.ts';
import { connectHost } from './host/agent.ts';
import { buildApp } from './http/app.ts';
import { addRoutes } from './http/routes.ts';
import type { Plane } from './plane.ts';
import { startReconcile } from './reconcile/loop.ts';
import { Activity } from './sandbox/activity.ts';
import { InFlight } from './sandbox/in-flight.ts';

const VERBS_END_WITHIN_MS = 30_000;
const REQUESTS_END_WITHIN_MS = 30_000;
const PING_EVERY_MS = 20_000;

export interface ControlPlane extends AsyncDisposable {
  /** `http://host:port` as bound. */
  url: string;
  plane: Plane;
}

export async function startControlPlane(
  config: Config,
  log: Logger,
  options: { pingEveryMs?: number } = {},
): Promise<ControlPlane> {
  await using undo = new AsyncDisposableStack();

  const db: Database = connectDatabase(config.databaseUrl, log);
  undo.defer(() => db.destroy());
  await throughOutage(() => migrate(db));

  const host = connectHost(config.agentSocket, log);
  const activity = new Activity(db, log);
  undo.defer(() => activity.close());
  const verbs = new InFlight();
  const templateVerbs = new InFlight();
  const plane: Plane = { db, host, hostId: 'default', log, verbs, templateVerbs, activity };
  undo.defer(async () => {
    const left = [
      ...(await templateVerbs.drain(VERBS_END_WITHIN_MS)),
      ...(await verbs.drain(VERBS_END_WITHIN_MS)),
    ];
    if (left.length > 0)
      log.warn({ left }, 'verbs were still under way at the end; the next start settles them');
  });

  undo.defer(startReconcile(plane, config.reconcileMs));

  const verifyKey = keyVerifier(db);
  const app = await buildApp(log, verifyKey);
  undo.defer(async () => {
    const cut = setTimeout(() => app.server.closeAllConnections(), REQUESTS_END_WITHIN_MS);
    await app.close();
    clearTimeout(cut);
  });
  addRoutes(app, plane, {
    verifyKey,
    checkOrigin: originCheck(config),
    pingEveryMs: options.pingEveryMs ?? PING_EVERY_MS,
  });
  await app.listen({ host: config.listen.host, port: config.listen.port });

  const { port } = app.server.address() as AddressInfo;
  const { host: name } = config.listen;
  const close = undo.move();
  return {
    url: `http://${name.includes(':') ? `[${name}]` : name}:${port}`,
    plane,
    [Symbol.asyncDispose]: () => close.disposeAsync(),
  };
}
