/**
 * `thaw up`: Thaw on this machine, in the foreground. PostgreSQL, host agent and control plane are processes of their
 * own, started again when they die; Ctrl-C stops them in reverse order and leaves the sandboxes running.
 */
import { existsSync } from 'node:fs';
import { chmod, mkdir, stat } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import type { Config } from '../config.ts';
import type { Progress } from '../progress.ts';
import { agentAnswers, countRunning } from './agent.ts';
import { Daemon, type DaemonOptions } from './daemon.ts';
import { drain } from './drain.ts';
import { keepIdentity } from './identity.ts';
import { keepKey, renewKey } from './key.ts';
import { answers, hostAndPort, lendTls, requireSafeListen, type TlsFiles, tlsFiles } from './listen.ts';
import { logLine, parse } from './log.ts';
import { keyFile, UpPaths } from './paths.ts';
import { databaseUrl, startPostgres } from './postgres.ts';
import { startAgain, stopOrRenew } from './renew.ts';
import { run } from './run.ts';
import { announceRunning } from './running.ts';
import { findUser, type User } from './user.ts';

export interface UpOptions {
  config: Config;
  env: NodeJS.ProcessEnv;
  progress: Progress;
  /** One JSON line on standard output when it is ready, instead of words. */
  json: boolean;
  /** Every line of the daemons on standard error. */
  verbose: boolean;
  /** The API is served by HTTPS with these. */
  tls: TlsFiles | undefined;
  /** Clear text off loopback is wanted. */
  insecure: boolean;
  /** Sandboxes are paused when it stops. */
  drain: boolean;
  /** Aborted by Ctrl-C or SIGTERM. */
  signal: AbortSignal;
}

/** Of `add-key`: the key was revoked. */
const REVOKED_EXIT_CODE = 3;

/** Runs until `signal`; resolves when everything is stopped. */
export async function up(options: UpOptions): Promise<void> {
  const { config, progress, signal } = options;
  if (process.getuid?.() !== 0)
    throw new ThawError('forbidden', 'thaw up needs root: sandboxes need namespaces and taps');
  if (config.version === undefined)
    throw new ThawError('invalid_state', 'thaw up runs from an installed version: make setup');
  const { insecure, tls } = options;
  requireSafeListen({ setting: 'THAW_LISTEN', listen: config.listen, tls, insecure });
  const { listen: proxyListen, cert, key: certKey } = config.proxy;
  if (proxyListen !== undefined && proxyListen !== 'off')
    requireSafeListen({ setting: 'THAW_PROXY_LISTEN', listen: proxyListen, tls: undefined, insecure });
  const proxyTls = tlsFiles(cert, certKey, 'THAW_PROXY_TLS_CERT and THAW_PROXY_TLS_KEY');
  const paths = new UpPaths({ data: config.data, run: config.run, version: config.version });
  const client = await findUser('thaw');
  const database = config.databaseUrl === undefined ? await findUser('thaw-db') : undefined;
  await openFolder(paths.data, 0o711);
  await openFolder(paths.run, 0o755);
  if (await agentAnswers(paths.agentSocket))
    throw new ThawError('conflict', `Thaw already runs on ${paths.run}`);
  if (existsSync(paths.restoring))
    throw new ThawError(
      'invalid_state',
      `a restore into ${paths.data} was cut short: empty the folder and restore again`,
    );
  const identity = await keepIdentity(paths.identity);
  let key = await keepKey(keyFile(paths.data));

  await using daemons = new AsyncDisposableStack();
  const end = stopOrRenew(signal);
  const self = daemons.use(await announceRunning(paths.run, paths.version));
  const common = (name: string) => ({
    onLine: (line: string) => show(options, name, line),
    onRestart: (reason: string) => progress.say(`${name} ended (${reason}) and is started again`),
    signal,
  });
  let url = config.databaseUrl;
  if (database !== undefined) {
    const start = () => startPostgres({ paths, owner: database, client, ...common('postgres') });
    daemons.use(await progress.step('PostgreSQL', start));
    url = databaseUrl(paths.clusterSocket, client);
  }
  const environment = { ...ownVariables(options.env), THAW_DATABASE_URL: url!, THAW_IDENTITY: identity };
  for (const [prefix, files, folder] of [
    ['THAW_TLS', tls, paths.tls],
    ['THAW_PROXY_TLS', proxyTls, paths.proxyTls],
  ] as const) {
    if (files === undefined) continue;
    const lent = daemons.use(await lendTls(files, folder, client, progress.say));
    Object.assign(environment, { [`${prefix}_CERT`]: lent.files.cert, [`${prefix}_KEY`]: lent.files.key });
  }
  const agent = () => startAgent(paths, ownVariables(options.env), common('host-agent'));
  daemons.use(await progress.step('host agent', agent));
  const admitted = await progress.step('API key', () => admitKey(paths, client, environment, key));
  if (!admitted) {
    key = await renewKey(keyFile(paths.data));
    await admitKey(paths, client, environment, key);
    progress.say(`the API key in ${keyFile(paths.data)} was revoked: a new one is in its place`);
  }
  const plane = await progress.step('control plane', () =>
    startPlane(paths, client, environment, common('control-plane')),
  );
  daemons.use(plane.daemon);

  await self.serving(plane.urls.url);
  announce(options, plane.urls, key);
  const how = await end;
  if (options.drain && how === 'stop') {
    // Nothing may wake or make a sandbox meanwhile.
    await plane.daemon.stop();
    await progress.step('pausing sandboxes', () => drain(paths.agentSocket, progress.say));
  }
  const left = await countRunning(paths.agentSocket).catch(() => undefined);
  await progress.step('stopping', () => daemons.disposeAsync());
  if (how === 'renew') startAgain(paths.version, options.env, listenAt(plane.urls));
  progress.say(farewell(left));
}

/**
 * A daemon's live heap is some 25 MiB; left to itself V8 lets ten times that gather before it first collects the old
 * generation, and memory that guests could have goes to garbage. In MiB.
 */
const SMALL_HEAP = ['--max-semi-space-size=8', '--initial-old-space-size=32'];

type Common = Pick<DaemonOptions, 'onLine' | 'onRestart' | 'signal'>;

function startAgent(paths: UpPaths, env: Record<string, string>, common: Common): Promise<Daemon> {
  return Daemon.start({
    name: 'the host agent',
    argv: [paths.node, ...SMALL_HEAP, paths.program('host-agent')],
    env: {
      ...env,
      THAW_VERSION_DIR: paths.version,
      THAW_DATA: paths.data,
      THAW_RUN: paths.run,
      NODE_COMPILE_CACHE: paths.compileCache,
    },
    stopSignal: 'SIGTERM',
    stopWithinMs: 60_000,
    readyWithinMs: 120_000,
    ready: () => agentAnswers(paths.agentSocket),
    ...common,
  });
}

async function startPlane(paths: UpPaths, user: User, env: Record<string, string>, common: Common) {
  let urls: Urls | undefined;
  const settings: Record<string, string> = { ...env, THAW_RUN: paths.run };
  const daemon = await Daemon.start({
    name: 'the control plane',
    argv: [paths.node, ...SMALL_HEAP, paths.program('control-plane')],
    env: settings,
    user,
    stopSignal: 'SIGTERM',
    stopWithinMs: 70_000,
    readyWithinMs: 60_000,
    ready: async () => urls !== undefined && (await answers(`${urls.url}/readyz`)),
    ...common,
    onLine: (line) => {
      common.onLine(line);
      const found = parse(line);
      if (found?.msg !== 'listening' || found.url === undefined) return;
      urls = { url: found.url, proxyUrl: found.proxyUrl, proxyTlsUrl: found.proxyTlsUrl };
      // Started again, it must be found at the ports that were told, also when those were free ones of the system's.
      Object.assign(settings, listenAt(urls));
    },
  });
  return { daemon, urls: urls! };
}

/** Where the control plane listens. */
interface Urls {
  url: string;
  proxyUrl: string | undefined;
  proxyTlsUrl: string | undefined;
}

function listenAt({ url, proxyUrl, proxyTlsUrl }: Urls): Record<string, string> {
  return {
    THAW_LISTEN: hostAndPort(url),
    ...(proxyUrl !== undefined && { THAW_PROXY_LISTEN: hostAndPort(proxyUrl) }),
    ...(proxyTlsUrl !== undefined && { THAW_PROXY_TLS_LISTEN: hostAndPort(proxyTlsUrl) }),
  };
}

/** Makes the key valid in the database; it may be already. False if it was revoked. */
async function admitKey(
  paths: UpPaths,
  user: User,
  env: Record<string, string>,
  key: string,
): Promise<boolean> {
  const argv = [paths.node, paths.program('control-plane'), 'add-key'] as const;
  const { code, output } = await run(user, argv, { env, input: key });
  if (code === REVOKED_EXIT_CODE) return false;
  if (code !== 0) throw new ThawError('unavailable', `the database can not be used: ${output.trim()}`);
  return true;
}

/** Other users must be able to pass through it; what is inside guards itself. */
async function openFolder(folder: string, mode: number): Promise<void> {
  await mkdir(folder, { recursive: true, mode });
  const now = (await stat(folder)).mode & 0o7777;
  if ((now & mode) !== mode) await chmod(folder, now | mode);
}

function ownVariables(env: NodeJS.ProcessEnv): Record<string, string> {
  const own = Object.entries(env).filter((entry): entry is [string, string] => {
    const [name, value] = entry;
    return value !== undefined && name.startsWith('THAW_') && name !== 'THAW_API_KEY';
  });
  return {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    LC_ALL: 'C.UTF-8',
    NODE_ENV: 'production',
    ...Object.fromEntries(own),
  };
}

function show({ verbose }: UpOptions, name: string, line: string): void {
  const text = logLine(verbose, name, line);
  if (text !== undefined) process.stderr.write(`${text}\n`);
}

function announce({ config, env, json, drain }: UpOptions, urls: Urls, key: string): void {
  const { url, proxyUrl, proxyTlsUrl } = urls;
  const { data, run } = config;
  if (json) {
    const proxy = { proxy_url: proxyUrl, proxy_tls_url: proxyTlsUrl };
    process.stdout.write(`${JSON.stringify({ url, ...proxy, key, data, run, pid: process.pid })}\n`);
    return;
  }
  const ports = [proxyUrl, proxyTlsUrl].filter((each) => each !== undefined);
  const where = `${ports.join(' and ')}, as PORT-SANDBOX.${env.THAW_DOMAIN || 'localhost'}`;
  process.stdout.write(`Thaw runs at ${url}
Ports of sandboxes: ${ports.length === 0 ? 'not served' : where}
API key: ${key} (kept in ${keyFile(config.data)})
Press Ctrl-C to stop; sandboxes ${drain ? 'are paused then' : 'go on running'}.
`);
}

function farewell(left: number | undefined): string {
  if (left === undefined)
    return 'Thaw is stopped. Sandboxes that were running go on: `thaw up` finds them again.';
  if (left === 0) return 'Thaw is stopped. No sandbox was running.';
  return `Thaw is stopped. ${left} ${left === 1 ? 'sandbox goes' : 'sandboxes go'} on running: \`thaw up\` finds them again.`;
}
