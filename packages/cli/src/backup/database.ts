/** The database that a backup reads or a restore fills, whether Thaw runs or not. */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { Config } from '../config.ts';
import { UpPaths } from '../up/paths.ts';
import { databaseUrl, runningServer, startPostgres } from '../up/postgres.ts';
import { findUser, type User } from '../up/user.ts';

export interface OpenDatabase extends AsyncDisposable {
  url: string;
}

/** The one that DATABASE_URL names; else that of the data folder, started for the while if it does not run. */
export async function openDatabase(
  config: Config,
  paths: UpPaths,
  client: User,
  signal: AbortSignal,
): Promise<OpenDatabase> {
  if (config.databaseUrl !== undefined)
    return { url: config.databaseUrl, [Symbol.asyncDispose]: async () => {} };
  const running = await runningServer(paths.cluster);
  if (running !== undefined)
    return { url: databaseUrl(running.socketDir, client), [Symbol.asyncDispose]: async () => {} };
  await using undo = new AsyncDisposableStack();
  const run = await mkdtemp(path.join(os.tmpdir(), 'thaw-'));
  undo.defer(() => rm(run, { recursive: true, force: true }));
  // The users of server and client pass through it.
  await chmod(run, 0o711);
  const own = new UpPaths({ data: paths.data, run, version: paths.version });
  const owner = await findUser('thaw-db');
  undo.use(await startPostgres({ paths: own, owner, client, onLine: () => {}, onRestart: () => {}, signal }));
  const kept = undo.move();
  return { url: databaseUrl(own.clusterSocket, client), [Symbol.asyncDispose]: () => kept.disposeAsync() };
}
