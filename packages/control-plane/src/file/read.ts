/** Files out of a guest. Nothing is answered before the first bytes are here: a missing file is a 404, not an empty body. */
import { type ReadFile, ThawError } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { enter } from '../sandbox/enter.ts';
import { held } from '../sandbox/held.ts';
import { BUFFERED_BYTES_MAX } from './write.ts';

export async function readBuffered(
  plane: Plane,
  teamId: string,
  id: string,
  wish: ReadFile,
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of await readStream(plane, teamId, id, wish)) {
    size += chunk.length;
    if (size > BUFFERED_BYTES_MAX) {
      throw new ThawError('too_large', 'the file is larger than 100 MiB, use files/stream/read');
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The file's bytes; whoever stops reading early ends the transfer. */
export async function readStream(
  plane: Plane,
  teamId: string,
  id: string,
  wish: ReadFile,
): Promise<AsyncGenerator<Uint8Array>> {
  using entered = new DisposableStack();
  entered.use(await enter(plane, teamId, id));
  const abort = new AbortController();
  entered.defer(() => abort.abort());
  const request = { sandboxId: id, path: wish.path, user: wish.user ?? '' };
  const chunks = plane.host.readFile(request, abort.signal)[Symbol.asyncIterator]();
  const first = await chunks.next();
  const rest = (async function* () {
    for (let next = first; !next.done; next = await chunks.next()) {
      if (next.value.length > 0) yield next.value;
    }
  })();
  return held(entered.move(), rest);
}
