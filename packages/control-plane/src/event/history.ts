/** Who did what to which sandbox. No verb waits for its line; whoever reads a history waits for what is being written. */
import type { Insertable } from 'kysely';
import type { Logger } from 'pino';
import { type Database, throughOutage } from '../db/connect.ts';
import type { EventTable } from '../db/schema.ts';
import { newSortedId } from '../db/sorted-id.ts';
import { currentRequest } from '../http/request.ts';
import { insertEvent } from './table.ts';

/** The actor of what no request asked for. */
export const ITSELF = 'thaw';

export type Happening = Pick<Insertable<EventTable>, 'verb' | 'outcome' | 'ms'> & {
  message?: string;
  timingsMs?: Record<string, number>;
};

export class History {
  readonly #db: Database;
  readonly #log: Logger;
  /** The last line of each sandbox that is being written; lines of one sandbox are written in their order. */
  readonly #writing = new Map<string, Promise<void>>();

  constructor(db: Database, log: Logger) {
    this.#db = db;
    this.#log = log;
  }

  record(sandboxId: string, { message, timingsMs, ...what }: Happening): void {
    const request = currentRequest();
    const event = {
      ...what,
      id: newSortedId('ev'),
      sandbox_id: sandboxId,
      actor: request?.actor ?? ITSELF,
      message: message ?? null,
      timings_ms: JSON.stringify(timingsMs ?? {}),
      request_id: request?.id ?? null,
    };
    const written = (this.#writing.get(sandboxId) ?? Promise.resolve())
      .then(() => throughOutage(() => insertEvent(this.#db, event)))
      .catch((error: unknown) =>
        this.#log.warn({ err: error, sandbox: sandboxId }, 'a line of history was not written'),
      )
      .finally(() => {
        if (this.#writing.get(sandboxId) === written) this.#writing.delete(sandboxId);
      });
    this.#writing.set(sandboxId, written);
  }

  /** Resolves when what was recorded of this sandbox is written. */
  async settled(sandboxId: string): Promise<void> {
    await this.#writing.get(sandboxId);
  }

  async close(): Promise<void> {
    await Promise.all(this.#writing.values());
  }
}
