/** A PostgreSQL cluster for tests: own folder, own socket, gone afterwards, also when the test process is killed. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';

const ROOT = '/usr/lib/postgresql';
const SERVICE_USER = 'postgres';

function binaries(): string {
  if (process.env.THAW_PG_BIN) return process.env.THAW_PG_BIN;
  const newest = readdirSync(ROOT).sort((a, b) => Number(b) - Number(a))[0];
  return join(ROOT, newest ?? '', 'bin');
}

/** PostgreSQL refuses root: as root it runs as the service user of its package. */
function owner(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith(`${SERVICE_USER}:`));
  if (!line)
    throw new Error(`the tests run as root and need the user ${SERVICE_USER} of the package postgresql`);
  const [, , uid, gid] = line.split(':');
  return { uid: Number(uid), gid: Number(gid) };
}

export class ThrowawayCluster implements AsyncDisposable {
  readonly #folder: string;
  #postmaster: ReturnType<typeof spawn>;
  #databases = 0;

  private constructor(folder: string) {
    this.#folder = folder;
    this.#postmaster = this.#launch();
  }

  static async start(): Promise<ThrowawayCluster> {
    const folder = mkdtempSync(join(tmpdir(), 'thaw-pg-'));
    const user = owner();
    if (user) chownSync(folder, user.uid, user.gid);
    const bin = binaries();
    const data = join(folder, 'data');
    execFileSync(join(bin, 'initdb'), ['-D', data, '-A', 'trust', '-U', 'thaw', '-E', 'UTF8', '--no-sync'], {
      ...user,
      cwd: folder,
      stdio: 'pipe',
    });
    const cluster = new ThrowawayCluster(folder);
    try {
      await cluster.#ready();
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
    return cluster;
  }

  /** The URL of a new, empty database. */
  async database(): Promise<string> {
    this.#databases += 1;
    const name = `t${this.#databases}`;
    await this.#query(`create database ${name}`);
    return this.#url(name);
  }

  /** Stops the server at once, as a crash would; its databases survive. */
  async crash(): Promise<void> {
    const exited = once(this.#postmaster, 'exit');
    this.#postmaster.kill('SIGQUIT');
    await exited;
  }

  async restart(): Promise<void> {
    this.#postmaster = this.#launch();
    await this.#ready();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#postmaster.exitCode === null && this.#postmaster.signalCode === null) {
      const exited = once(this.#postmaster, 'exit');
      this.#postmaster.kill('SIGINT');
      await exited;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #launch(): ReturnType<typeof spawn> {
    const user = owner();
    // The kernel stops the postmaster when this process dies, however it dies.
    const drop = user ? [`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups'] : [];
    const data = join(this.#folder, 'data');
    const options = ['-D', data, '-k', this.#folder, '-c', 'listen_addresses=', '-c', 'fsync=off'];
    const command = [...drop, '--pdeathsig', 'INT', join(binaries(), 'postgres'), ...options];
    return spawn('setpriv', command, { cwd: this.#folder, stdio: 'ignore' });
  }

  #url(database: string): string {
    return `postgres://thaw@/${database}?host=${this.#folder}`;
  }

  async #query(sql: string): Promise<void> {
    const client = new pg.Client(this.#url('postgres'));
    await client.connect();
    try {
      await client.query(sql);
    } finally {
      await client.end();
    }
  }

  async #ready(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#query('select 1');
      } catch (error) {
        if (attempt === 200 || this.#postmaster.exitCode !== null) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }
}
