/** Notes that sandboxes were used. Requests never wait for it: what was used is written once a second. */
import type { Logger } from 'pino';
import type { Database } from '../db/connect.ts';
import { touchSandboxes } from './table.ts';

const WRITE_EVERY_MS = 1000;

export class Activity {
  readonly #db: Database;
  readonly #log: Logger;
  readonly #used = new Set<string>();
  readonly #timer: NodeJS.Timeout;

  constructor(db: Database, log: Logger) {
    this.#db = db;
    this.#log = log;
    this.#timer = setInterval(() => void this.#write(), WRITE_EVERY_MS);
  }

  touch(id: string): void {
    this.#used.add(id);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#write();
  }

  async #write(): Promise<void> {
    const ids = [...this.#used];
    if (ids.length === 0) return;
    this.#used.clear();
    try {
      await touchSandboxes(this.#db, ids);
    } catch (error) {
      this.#log.warn({ err: error }, 'the last use of some sandboxes was not written');
    }
  }
}
