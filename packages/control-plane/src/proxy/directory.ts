/**
 * Every sandbox's route, in memory: traffic to a running one never waits for the database. It follows the rows by three
 * ways: what this process moves is told by the mover itself, what others move by the database, and whoever would be
 * refused is looked up first. Of two states of a sandbox the one with the higher revision is the newer.
 */
import type { Logger } from 'pino';
import { asDatabaseError, type Database } from '../db/connect.ts';
import { Session } from '../db/session.ts';
import { watchSandboxes } from '../sandbox/moved.ts';
import { type Route, staysAt } from './route.ts';
import { findRoutes, listRoutes, toRoute } from './table.ts';

/** An id that is nobody's, or of one that ended, is not looked up again for so long: neither comes back. */
const FRESH_MS = 100;
/** Without word from the database everything is read so often. */
const POLL_EVERY_MS = 1_000;
/** With it, only against what nobody thought of. */
const RELOAD_EVERY_MS = 300_000;
/** Ids in one query, and that may wait for the next one. */
const BATCH_MAX = 1_000;
const WAITING_MAX = 10_000;
/** Ids whose last look is remembered. */
const LOOKS_MAX = 20_000;
const CHANNEL = 'thaw_sandboxes';

interface Entry {
  route: Route;
  /** The database has a newer one. */
  stale: boolean;
  /** Counts readings of the database: one that began before this entry was made says nothing about its absence. */
  reading: number;
}

export interface DirectoryOptions {
  db: Database;
  log: Logger;
  /** The VM that traffic went to is gone, or another sandbox's soon. */
  onLeft: (id: string) => void;
}

/** More are looked for than the database is asked for at once. */
export class TooManyLooks extends Error {}

export class Directory implements AsyncDisposable {
  readonly #options: DirectoryOptions;
  readonly #entries = new Map<string, Entry>();
  /** When each id was last looked up; the oldest first. */
  readonly #looks = new Map<string, number>();
  readonly #undo = new AsyncDisposableStack();
  #wanted = new Set<string>();
  #running: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;
  #reading = 0;
  #told = false;

  private constructor(options: DirectoryOptions) {
    this.#options = options;
  }

  /** Resolves when it knows every sandbox. `url` is of the server that tells of changes; without one it asks. */
  static async open(options: DirectoryOptions, url: string | undefined): Promise<Directory> {
    const directory = new Directory(options);
    try {
      await directory.#open(url);
      return directory;
    } catch (error) {
      await directory[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #open(url: string | undefined): Promise<void> {
    const watcher = {
      moved: (row: Parameters<typeof toRoute>[0]) => this.#see(toRoute(row)),
      removed: (id: string) => this.#remove(id),
    };
    this.#undo.use(watchSandboxes(this.#options.db, watcher));
    if (url === undefined) await this.#reload();
    else this.#undo.use(await this.#listen(url));
    let rounds = 0;
    const timer = setInterval(() => {
      rounds += 1;
      if (this.#told && (rounds * POLL_EVERY_MS) % RELOAD_EVERY_MS !== 0) return;
      this.#reload().catch((error) => this.#warn(error, 'not all sandboxes could be read'));
    }, POLL_EVERY_MS);
    this.#undo.defer(() => clearInterval(timer));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
    await this.#running.catch(() => {});
  }

  /** Answers at once; undefined where it is not known, or not surely. */
  find(id: string): Route | undefined {
    const entry = this.#entries.get(id);
    return entry === undefined || entry.stale ? undefined : entry.route;
  }

  /** As the database has it now. Throws when that can't be reached, or `TooManyLooks`. */
  async look(id: string): Promise<Route | undefined> {
    const looked = this.#looks.get(id);
    const isFresh = looked !== undefined && performance.now() - looked < FRESH_MS;
    const entry = this.#entries.get(id);
    const isFinal = entry === undefined || (!entry.stale && entry.route.status === 'stopped');
    if (!isFresh || !isFinal) await this.#load(id);
    return this.find(id);
  }

  /** Every sandbox that has not ended. */
  *all(): Generator<Route> {
    for (const { route } of this.#entries.values()) if (route.status !== 'stopped') yield route;
  }

  async #listen(url: string): Promise<Session> {
    return Session.open({
      url,
      name: 'thaw-proxy',
      prepare: async (client) => {
        client.on('notification', ({ payload }) => this.#notified(payload ?? ''));
        await client.query(`listen ${CHANNEL}`);
        // What happened before this session was told to nobody.
        await this.#reload();
        this.#told = true;
      },
      onLost: () => {
        this.#told = false;
        this.#options.log.warn('what others do to sandboxes is not heard of until the database is back');
      },
    });
  }

  #notified(payload: string): void {
    const [id = '', revision = ''] = payload.split(':');
    if (revision === '') {
      this.#remove(id);
      return;
    }
    const entry = this.#entries.get(id);
    if (entry !== undefined) {
      if (entry.route.revision >= Number(revision)) return;
      entry.stale = true;
    }
    this.#load(id).catch((error) => this.#warn(error, 'a sandbox that changed could not be read'));
  }

  #see(route: Route, reading = this.#reading): void {
    const known = this.#entries.get(route.id)?.route;
    if (known !== undefined && known.revision > route.revision) return;
    this.#entries.set(route.id, { route, stale: false, reading });
    if (known !== undefined && staysAt(known, known) && !staysAt(known, route))
      this.#options.onLeft(route.id);
  }

  /** Its end is remembered for a while: a reading that began earlier may still say that it runs. */
  #remove(id: string): void {
    const known = this.#entries.get(id)?.route;
    if (known !== undefined) this.#see({ ...known, status: 'stopped', revision: Number.MAX_SAFE_INTEGER });
  }

  /** Resolves with a reading that began after this call. All that wait for one share it. */
  async #load(id: string): Promise<void> {
    if (this.#wanted.size >= WAITING_MAX) throw new TooManyLooks();
    this.#wanted.add(id);
    while (this.#wanted.has(id)) {
      this.#next ??= this.#readNext();
      await this.#next;
    }
    await this.#running;
  }

  async #readNext(): Promise<void> {
    await this.#running.catch(() => {});
    const ids = [...this.#wanted].slice(0, BATCH_MAX);
    for (const id of ids) this.#wanted.delete(id);
    this.#next = undefined;
    this.#running = this.#read(ids);
    // Whoever waits for it hears of a failure.
    this.#running.catch(() => {});
  }

  async #read(ids: readonly string[]): Promise<void> {
    const reading = ++this.#reading;
    let found: Route[];
    try {
      found = await findRoutes(this.#options.db, ids);
    } catch (error) {
      throw asDatabaseError(error);
    }
    for (const route of found) this.#see(route, reading);
    const present = new Set(found.map(({ id }) => id));
    for (const id of ids) {
      if (!present.has(id)) this.#absent(id, reading);
      this.#noteLook(id);
    }
  }

  async #reload(): Promise<void> {
    const reading = ++this.#reading;
    const routes = await listRoutes(this.#options.db);
    const live = new Set(routes.map(({ id }) => id));
    for (const route of routes) this.#see(route, reading);
    for (const [id, entry] of [...this.#entries]) {
      if (live.has(id)) continue;
      if (entry.route.status === 'stopped' && entry.reading < reading - 1) this.#entries.delete(id);
      else this.#absent(id, reading);
    }
  }

  /** A reading did not have it. */
  #absent(id: string, reading: number): void {
    const entry = this.#entries.get(id);
    if (entry !== undefined && entry.reading < reading) this.#remove(id);
  }

  #noteLook(id: string): void {
    this.#looks.delete(id);
    this.#looks.set(id, performance.now());
    if (this.#looks.size <= LOOKS_MAX) return;
    for (const oldest of this.#looks.keys()) {
      this.#looks.delete(oldest);
      break;
    }
  }

  #warn(error: unknown, message: string): void {
    this.#options.log.warn({ err: error }, `the proxy: ${message}`);
  }
}
