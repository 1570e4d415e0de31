/** What changes in a folder, as lines of JSON while it happens. */
import { ThawError, type WatchDir, WatchMessage } from '@thaw/api';
import type { WatchDirResponse } from '@thaw/api/rpc';
import { toThawError } from '../http/errors.ts';
import type { Plane } from '../plane.ts';
import { enter } from '../sandbox/enter.ts';
import { held } from '../sandbox/held.ts';

const KEEPALIVE_MS = 30_000;

/**
 * Nothing is answered before the watch stands: a folder that is missing is a 404. A watch never ends by itself: its
 * last line is an `error`, or its reader is `gone`.
 */
export async function watchDir(
  plane: Plane,
  teamId: string,
  id: string,
  wish: WatchDir,
  gone: AbortSignal,
): Promise<AsyncGenerator<string>> {
  using entered = new DisposableStack();
  entered.use(await enter(plane, teamId, id));
  const events = plane.host.watchDir({ sandboxId: id, ...wish }, gone)[Symbol.asyncIterator]();
  const first = await events.next();
  if (first.done) throw new ThawError('agent_error', 'the watch ended before it began');
  const lines = (async function* () {
    try {
      let next = Promise.resolve(first as IteratorResult<WatchDirResponse>);
      for (;;) {
        const result = await orTimeout(next, KEEPALIVE_MS);
        if (result === undefined) {
          yield line({ type: 'keepalive' });
          continue;
        }
        if (result.done) throw new ThawError('agent_error', 'the watch ended');
        const message = messageOf(result.value);
        if (message) yield line(message);
        next = events.next();
        // Told where it is awaited.
        next.catch(() => {});
      }
    } catch (thrown) {
      const { kind, message } = toThawError(thrown);
      yield line({ type: 'error', code: kind, data: message });
    }
  })();
  return held(entered.move(), lines);
}

function messageOf({ event }: WatchDirResponse): WatchMessage | undefined {
  switch (event.case) {
    case 'start':
      return { type: 'start' };
    case 'change':
      return WatchMessage.parse({ type: 'change', change: event.value.type, name: event.value.name });
    default:
      return undefined;
  }
}

const line = (message: WatchMessage): string => `${JSON.stringify(message)}\n`;

async function orTimeout<T>(promise: Promise<T>, timeoutMs: number): Promise<T | undefined> {
  const { promise: expired, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => resolve(undefined), timeoutMs);
  try {
    return await Promise.race([promise, expired]);
  } finally {
    clearTimeout(timer);
  }
}
