/** Changes in a folder, as they happen. */
import { isErrorKind, ThawError, WatchMessage } from '@thaw/api';
import { type Connection, sandboxPath, send } from './http.ts';

export interface WatchOptions {
  user?: string | undefined;
  /** Folders below the watched one too. */
  recursive?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

export interface Change {
  change: 'create' | 'write' | 'remove' | 'rename' | 'chmod';
  /** Relative to the watched folder. */
  name: string;
}

/** Resolves when the watch stands. The iterator never ends by itself: it throws when the watch breaks. */
export async function watchDir(
  to: Connection,
  sandboxId: string,
  path: string,
  options: WatchOptions = {},
): Promise<AsyncGenerator<Change>> {
  const { signal, ...wish } = options;
  const response = await send(to, 'POST', `${sandboxPath(sandboxId)}/files/watch`, {
    json: { ...wish, path },
    signal,
  });
  const messages = messagesOf(response);
  const first = await messages.next();
  if (first.done) throw broken();
  return changes(first.value, messages);
}

async function* changes(first: WatchMessage, messages: AsyncGenerator<WatchMessage>): AsyncGenerator<Change> {
  try {
    for (let message = first; ; ) {
      if (message.type === 'change') yield { change: message.change, name: message.name };
      if (message.type === 'error')
        throw new ThawError(isErrorKind(message.code) ? message.code : 'agent_error', message.data);
      const next = await messages.next();
      if (next.done) throw broken();
      message = next.value;
    }
  } finally {
    await messages.return(undefined);
  }
}

async function* messagesOf(response: Response): AsyncGenerator<WatchMessage> {
  let rest = '';
  const text = response.body?.pipeThrough(new TextDecoderStream()) ?? [];
  try {
    for await (const chunk of text) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) yield WatchMessage.parse(JSON.parse(line));
    }
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new ThawError('unavailable', 'the watch broke off', { cause: error });
  }
}

function broken(): ThawError {
  return new ThawError('unavailable', 'the watch broke off');
}
