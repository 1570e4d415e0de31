/** The request that a call belongs to: its id comes from the control plane and stands in every line logged for it. */
import { AsyncLocalStorage } from 'node:async_hooks';

export const REQUEST_ID = 'x-request-id';

const requests = new AsyncLocalStorage<string>();

/** For a logger's `mixin`. */
export function requestFields(): { request_id?: string } {
  const id = requests.getStore();
  return id === undefined ? {} : { request_id: id };
}

export function within<T>(id: string | null, work: () => T): T {
  return id === null ? work() : requests.run(id, work);
}

/** The same for what yields: each turn of the generator is part of the request. */
export async function* eachWithin<T>(id: string | null, messages: AsyncIterable<T>): AsyncGenerator<T> {
  const iterator = messages[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await within(id, () => iterator.next());
      if (next.done) return;
      yield next.value;
    }
  } finally {
    await within(id, () => iterator.return?.());
  }
}
