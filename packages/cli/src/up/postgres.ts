/**
 * The embedded PostgreSQL: Debian's programs, a cluster in the data folder owned by a user of its own, reachable by
 * a Unix socket only. The control plane's user is known by its identity on the socket; there is no password.
 */
import { chmod, chown, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import { Daemon, type DaemonOptions } from './daemon.ts';
import { POSTGRES_VERSIONS, type UpPaths } from './paths.ts';
import { run } from './run.ts';
import type { User } from './user.ts';

const DATABASE = 'thaw';

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

/** How the control plane connects. */
export function databaseUrl(paths: UpPaths, client: User): string {
  const query = new URLSearchParams({ host: paths.clusterSocket, user: client.name });
  return `postgres:///${DATABASE}?${query}`;
}

/**
 * Makes the cluster if there is none and starts it. Throws `unavailable` when PostgreSQL is missing or refuses to
 * start, as it does while another one runs on the same files.
 */
export async function startPostgres(options: PostgresOptions): Promise<Daemon> {
  const { paths, owner, client, ...rest } = options;
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
    `the database was made by PostgreSQL ${made}, but ${found} installed: install the package postgresql-${made}, or move the cluster with pg_upgrade`,
  );
}

/** Prepared beside its place and renamed when complete: a start that was cut short leaves no half cluster. */
async function createCluster(bin: string, { paths, owner, client }: PostgresOptions): Promise<void> {
  const fresh = `${paths.cluster}.new`;
  await rm(fresh, { recursive: true, force: true });
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
