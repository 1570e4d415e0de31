/** Notes that sandboxes are used. Requests never wait for it: what was used is written once a second. */
import type { Logger } from 'pino';
import type { Database } from '../db/connect.ts';
import { touchSandboxes } from './table.ts';

const WRITE_EVERY_MS = 1000;

export class Activity {
  readonly #db: Database;
  readonly #log: Logger;
  /** Used since it was last written. */
  readonly #used = new Set<string>();
  /** In use now, and by how many. */
  readonly #open = new Map<string, number>();
  readonly #timer: NodeJS.Timeout;

  constructor(db: Database, log: Logger) {
    this.#db = db;
    this.#log = log;
    this.#timer = setInterval(() => void this.flush().catch(() => {}), WRITE_EVERY_MS);
  }

  touch(id: string): void {
    this.#used.add(id);
  }

  /** The sandbox is in use until what this answers is disposed of. */
  during(id: string): Disposable {
    this.#open.set(id, (this.#open.get(id) ?? 0) + 1);
    let left = false;
    return {
      [Symbol.dispose]: () => {
        if (left) return;
        left = true;
        const rest = (this.#open.get(id) ?? 1) - 1;
        if (rest > 0) this.#open.set(id, rest);
        else this.#open.delete(id);
        this.touch(id);
      },
    };
  }

  /** Used a moment ago, or in use. */
  has(id: string): boolean {
    return this.#open.has(id) || this.#used.has(id);
  }

  /** Writes down what was used until now. When that fails it is kept for the next time. */
  async flush(): Promise<void> {
    const ids = new Set([...this.#used, ...this.#open.keys()]);
    if (ids.size === 0) return;
    this.#used.clear();
    try {
      await touchSandboxes(this.#db, [...ids]);
    } catch (error) {
      for (const id of ids) this.#used.add(id);
      this.#log.warn({ err: error }, 'the last use of some sandboxes was not written yet');
      throw error;
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.flush().catch(() => {});
  }
}
