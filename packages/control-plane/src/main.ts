/**
 * The control plane's program.
 *
 *   main.ts             serves until SIGTERM or SIGINT
 *   main.ts init-key    makes the first API key and prints {"created":true,"key":…}, or {"created":false} if there is one
 *   main.ts openapi     prints the API's description
 *   main.ts add-key     makes the key on standard input valid; doing it again changes nothing; exit code 3: it was revoked
 *   main.ts dump        prints the whole database as lines of JSON
 *   main.ts load        takes such a dump, after a line that says which sandboxes were saved with it, into an empty one
 */
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { ThawError } from '@thaw/api';
import { pino } from 'pino';
import { addKey, makeFirstKey } from './auth/key.ts';
import { type Config, readConfig } from './config.ts';
import { connectDatabase, pingDatabase, throughOutage } from './db/connect.ts';
import { dumpDatabase } from './db/dump.ts';
import { loadDatabase, Saved } from './db/load.ts';
import { migrate } from './db/migrations.ts';
import { describeApi } from './http/describe.ts';
import { openLog } from './log.ts';
import { startControlPlane } from './start.ts';

const REVOKED_EXIT_CODE = 3;
const USAGE = 'usage: main.ts [serve | openapi | init-key | add-key | dump | load]';

async function serve(config: Config): Promise<void> {
  const log = openLog(config.logLevel);
  const running = await startControlPlane(config, log);
  const { url: proxyUrl, tlsUrl: proxyTlsUrl } = running.proxy;
  log.info({ url: running.url, proxyUrl, proxyTlsUrl }, 'listening');
  const signal = await new Promise<string>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve(name));
  });
  log.info({ signal }, 'shutting down');
  await running[Symbol.asyncDispose]();
}

async function keys(config: Config, command: 'init-key' | 'add-key'): Promise<void> {
  const log = pino({ name: 'control-plane', level: config.logLevel }, pino.destination(2));
  const db = connectDatabase(config.databaseUrl, log);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => db.destroy());
  await throughOutage(() => migrate(db));
  if (command === 'add-key') {
    await addKey(db, (await text(process.stdin)).trim());
    return;
  }
  const key = await makeFirstKey(db);
  console.log(JSON.stringify(key === undefined ? { created: false } : { created: true, key }));
}

async function copyDatabase(config: Config, command: 'dump' | 'load'): Promise<void> {
  const log = pino({ name: 'control-plane', level: config.logLevel }, pino.destination(2));
  const db = connectDatabase(config.databaseUrl, log);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => db.destroy());
  await throughOutage(() => pingDatabase(db));
  if (command === 'dump') {
    for await (const line of dumpDatabase(db)) {
      if (!process.stdout.write(`${line}\n`)) await once(process.stdout, 'drain');
    }
    return;
  }
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const saved = Saved.parse(JSON.parse((await lines.next()).value ?? ''));
  await loadDatabase(db, { [Symbol.asyncIterator]: () => lines }, saved);
}

async function main(command = 'serve'): Promise<void> {
  switch (command) {
    case 'serve':
      return serve(readConfig(process.env));
    case 'openapi':
      process.stdout.write(await describeApi());
      return;
    case 'init-key':
    case 'add-key':
      return keys(readConfig(process.env), command);
    case 'dump':
    case 'load':
      return copyDatabase(readConfig(process.env), command);
    default:
      console.error(USAGE);
      process.exitCode = 2;
  }
}

try {
  await main(process.argv[2]);
} catch (error) {
  console.error(`control plane: ${error instanceof Error ? error.message : error}`);
  process.exitCode = error instanceof ThawError && error.kind === 'forbidden' ? REVOKED_EXIT_CODE : 1;
}
