/**
 * The embedded PostgreSQL: Debian's programs, a cluster in the data folder owned by a user of its own, reachable by
 * a Unix socket only. The control plane's user is known by its identity on the socket; there is no password.
 */
import {
  chmod,
  chown,
  mkdir,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ThawError } from '@thaw/api';
import { Daemon, type DaemonOptions } from './daemon.ts';
import { POSTGRES_VERSIONS, type UpPaths } from './paths.ts';
import { run } from './run.ts';
import type { User } from './user.ts';

const DATABASE = 'thaw';
const END_WITHIN_MS = 30_000;

/** Only the owner and the control plane may connect, each as itself (pg_hba.conf). */
const ACCESS = `local ${DATABASE} ${DATABASE} peer
local all all peer
`;

export interface PostgresOptions extends Pick<DaemonOptions, 'onLine' | 'onRestart' | 'signal'> {
  paths: UpPaths;
  /** Owns the cluster's files and runs the server. */
  owner: User;
  /** The control plane's. */
  client: User;
}

/** How the control plane connects to the cluster whose socket is in `socketDir`. */
export function databaseUrl(socketDir: string, client: User): string {
  const query = new URLSearchParams({ host: socketDir, user: client.name });
  return `postgres:///${DATABASE}?${query}`;
}

/**
 * Makes the cluster if there is none and starts it. Throws `unavailable` when PostgreSQL is missing or refuses to
 * start, `conflict` while another one runs on the same files.
 */
export async function startPostgres(options: PostgresOptions): Promise<Daemon> {
  const { paths, owner, client, ...rest } = options;
  await untilFree(paths.cluster, paths.clusterSocket, options.signal);
  const bin = await binaries(paths.cluster);
  if (!(await exists(path.join(paths.cluster, 'PG_VERSION')))) await createCluster(bin, options);
  await mkdir(paths.clusterSocket, { recursive: true });
  await chown(paths.clusterSocket, owner.uid, client.gid);
  await chmod(paths.clusterSocket, 0o750);
  const settings = {
    listen_addresses: '',
    unix_socket_directories: paths.clusterSocket,
    max_connections: '40',
    shared_buffers: '32MB',
    min_wal_size: '32MB',
    max_wal_size: '256MB',
    log_timezone: 'UTC',
    log_min_messages: 'warning',
  };
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  return Daemon.start({
    name: 'PostgreSQL',
    argv: [path.join(bin, 'postgres'), '-D', paths.cluster, ...flags],
    env: environment(),
    user: owner,
    // Fast shutdown: sessions are ended, everything is written.
    stopSignal: 'SIGINT',
    stopWithinMs: 30_000,
    readyWithinMs: 60_000,
    ready: (pid) => accepts(paths.cluster, pid),
    ...rest,
  });
}

/** The programs of the version that made the cluster, else of the newest installed. */
async function binaries(cluster: string): Promise<string> {
  const installed = (await readdir(POSTGRES_VERSIONS).catch(() => []))
    .filter((version) => /^\d+$/.test(version))
    .toSorted((a, b) => Number(b) - Number(a));
  const made = (await readFile(path.join(cluster, 'PG_VERSION'), 'utf8').catch(() => undefined))?.trim();
  const version = made === undefined ? installed[0] : installed.find((candidate) => candidate === made);
  if (version !== undefined) return path.join(POSTGRES_VERSIONS, version, 'bin');
  if (made === undefined)
    throw new ThawError('unavailable', 'PostgreSQL is missing: install the package postgresql');
  const found = installed.length === 0 ? 'none is' : `${installed.join(', ')} is`;
  throw new ThawError(
    'unavailable',
    `the database in ${cluster} was made by PostgreSQL ${made}, but ${found} installed: install the package postgresql-${made}; to change the version, \`thaw backup\` with the old one and \`thaw restore\` into an empty data folder with the new one`,
  );
}

export interface RunningServer {
  pid: number;
  socketDir: string;
}

/** The server that accepts connections on the cluster now. */
export async function runningServer(cluster: string): Promise<RunningServer | undefined> {
  const lines = (await readFile(path.join(cluster, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n');
  const pid = Number(lines[0]);
  const socketDir = lines[4] ?? '';
  const ready = lines[7]?.trim() === 'ready' && socketDir !== '';
  if (!ready || !(await processesIn(cluster)).includes(pid)) return undefined;
  return { pid, socketDir };
}

/**
 * A `thaw up` that was killed leaves a server that is just ending, or parts of one whose memory a new one must not share:
 * they are waited for. One that somebody keeps running is not.
 */
async function untilFree(cluster: string, socketDir: string, signal: AbortSignal | undefined): Promise<void> {
  const deadline = performance.now() + END_WITHIN_MS;
  for (;;) {
    signal?.throwIfAborted();
    const pids = await processesIn(cluster);
    if (pids.length === 0) return await dropLocks(cluster, socketDir);
    const kept = await Promise.all(pids.map(isKept));
    if (kept.includes(true) || performance.now() > deadline)
      throw new ThawError(
        'conflict',
        `another PostgreSQL (process ${Math.min(...pids)}) runs on ${cluster}: stop the \`thaw up\` that it belongs to first`,
      );
    await sleep(100);
  }
}

/**
 * With nobody in the cluster's folder its locks are stale. A server that starts would still heed them as long as the
 * process id in them is taken: by the dead one until somebody reaps it, or by a stranger.
 */
async function dropLocks(cluster: string, socketDir: string): Promise<void> {
  await rm(path.join(cluster, 'postmaster.pid'), { force: true });
  const socketLock = path.join(socketDir, '.s.PGSQL.5432.lock');
  // Its second line is the cluster that it belongs to.
  const [, owner] = (await readFile(socketLock, 'utf8').catch(() => '')).split('\n');
  if (owner === cluster) await rm(socketLock, { force: true });
}

/** The server and its parts work in the cluster's folder. */
async function processesIn(cluster: string): Promise<number[]> {
  const found: number[] = [];
  const place = await realpath(cluster).catch(() => undefined);
  if (place === undefined) return found;
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const folder = await readlink(`/proc/${name}/cwd`).catch(() => undefined);
    if (folder === place) found.push(Number(name));
  }
  return found;
}

/** Whether a `thaw` that lives has started it. */
async function isKept(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const parent = /^PPid:\s*(\d+)$/m.exec(status)?.[1];
  const command = await readFile(`/proc/${parent}/cmdline`, 'utf8').catch(() => '');
  return command.includes('packages/cli/src/main.ts');
}

/** Prepared beside its place and renamed when complete: a start that was cut short leaves no half cluster. */
async function createCluster(bin: string, { paths, owner, client }: PostgresOptions): Promise<void> {
  const fresh = `${paths.cluster}.new-${process.pid}`;
  await removeUnfinished(paths);
  await mkdir(fresh, { mode: 0o700 });
  await chown(fresh, owner.uid, owner.gid);
  const locale = ['--encoding=UTF8', '--locale=C.UTF-8'];
  const layout = ['--data-checksums', '--wal-segsize=4', '--auth=peer'];
  await runAs(owner, [
    path.join(bin, 'initdb'),
    '--pgdata',
    fresh,
    '--username',
    owner.name,
    ...locale,
    ...layout,
  ]);
  const statements = [
    `create role "${client.name}" login;`,
    `create database ${DATABASE} owner "${client.name}";`,
    `revoke all on database ${DATABASE} from public;`,
  ];
  await runAs(
    owner,
    [path.join(bin, 'postgres'), '--single', '-D', fresh, 'postgres'],
    `${statements.join('\n')}\n`,
  );
  await writeFile(path.join(fresh, 'pg_hba.conf'), ACCESS);
  await rename(fresh, paths.cluster);
}

/** What starts that were cut short have left; one that is under way is not touched. */
async function removeUnfinished({ data, cluster }: UpPaths): Promise<void> {
  for (const name of await readdir(data)) {
    const pid = name.match(`^${path.basename(cluster)}\\.new-(\\d+)$`)?.[1];
    if (pid === undefined || (pid !== String(process.pid) && (await exists(`/proc/${pid}/stat`)))) continue;
    await rm(path.join(data, name), { recursive: true, force: true });
  }
}

/**
 * Whether this very server accepts connections: the first line of its lock file is its process id, the eighth its
 * state (utils/pidfile.h of PostgreSQL).
 */
async function accepts(cluster: string, pid: number): Promise<boolean> {
  const lines = (await readFile(path.join(cluster, 'postmaster.pid'), 'utf8')).split('\n');
  return Number(lines[0]) === pid && lines[7]?.trim() === 'ready';
}

/** Throws `internal` with what the program printed when it fails. */
async function runAs(user: User, argv: [string, ...string[]], input = ''): Promise<void> {
  const { code, output } = await run(user, argv, { env: environment(), input });
  // A statement that fails in single-user mode is only printed.
  if (code === 0 && !/^.*\b(ERROR|FATAL):/m.test(output)) return;
  throw new ThawError('internal', `${path.basename(argv[0])} failed: ${output.trim().slice(-2000)}`);
}

function environment(): Record<string, string> {
  return { PATH: '/usr/bin:/bin', LC_ALL: 'C.UTF-8', TZ: 'UTC' };
}

async function exists(file: string): Promise<boolean> {
  return readFile(file).then(
    () => true,
    () => false,
  );
}
