/**
 * One writer for each id. A call with the same key joins the one under way and gets its result; any other is refused,
 * or, with `after`, waits its turn. The work belongs to the process, not to the request that started it: it goes on
 * when the client is gone.
 */
import { ThawError } from '@thaw/api';

interface Entry {
  key: string;
  busy: string;
  promise: Promise<unknown>;
}

export class InFlight {
  readonly #entries = new Map<string, Entry>();

  /** `key` tells equal requests; `busy` is the message for those that are refused meanwhile. */
  run<T>(id: string, key: string, busy: string, action: () => Promise<T>): Promise<T> {
    const entry = this.#entries.get(id);
    if (entry?.key === key) return entry.promise as Promise<T>;
    if (entry) return Promise.reject(new ThawError('invalid_state', entry.busy));
    return this.#start(id, key, busy, action);
  }

  /** As `run`, but waits for whatever else is under way. */
  async after<T>(id: string, key: string, busy: string, action: () => Promise<T>): Promise<T> {
    for (;;) {
      const entry = this.#entries.get(id);
      if (!entry) return this.#start(id, key, busy, action);
      if (entry.key === key) return entry.promise as Promise<T>;
      await entry.promise.catch(() => {});
    }
  }

  /** Resolves when nothing is under way for the id, whatever came of it. */
  async idle(id: string): Promise<void> {
    for (let entry = this.#entries.get(id); entry; entry = this.#entries.get(id)) {
      await entry.promise.catch(() => {});
    }
  }

  /** As `idle`, for all ids that begin so. */
  async idleUnder(prefix: string): Promise<void> {
    for (const id of [...this.#entries.keys()].filter((id) => id.startsWith(prefix))) await this.idle(id);
  }

  has(id: string): boolean {
    return this.#entries.has(id);
  }

  /** Resolves when nothing is under way, or after `timeoutMs`; answers what is left. */
  async drain(timeoutMs: number): Promise<string[]> {
    const timeout = AbortSignal.timeout(timeoutMs);
    const expired = new Promise<void>((resolve) => {
      timeout.addEventListener('abort', () => resolve());
    });
    while (this.#entries.size > 0 && !timeout.aborted) {
      await Promise.race([
        Promise.allSettled([...this.#entries.values()].map((entry) => entry.promise)),
        expired,
      ]);
    }
    return [...this.#entries.keys()];
  }

  #start<T>(id: string, key: string, busy: string, action: () => Promise<T>): Promise<T> {
    const promise = Promise.resolve()
      .then(action)
      .finally(() => this.#entries.delete(id));
    this.#entries.set(id, { key, busy, promise });
    return promise;
  }
}
