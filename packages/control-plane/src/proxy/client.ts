/** What clients' connections need besides a request's answer. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants, type Http2ServerResponse } from 'node:http2';
import type { Socket } from 'node:net';

/** The rest of a body that nobody wants is read for so long: who writes it would not see the answer else. */
const DRAIN_MS = 5_000;

/** The client sees that its answer is broken, not that it is over. */
export function abort(response: ServerResponse): void {
  const { stream } = response as unknown as Partial<Http2ServerResponse>;
  if (stream !== undefined) stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  else if (response.socket !== null) reset(response.socket);
}

/** TCP's own word for it where there is one, so that an answer without a length is no whole one either. */
export function reset(socket: Socket): void {
  if ('encrypted' in socket) socket.destroy();
  else socket.resetAndDestroy();
}

/** Of a request that was answered before its end. */
export function drain(request: IncomingMessage): void {
  if (request.complete || request.destroyed) return;
  request.resume();
  const late = setTimeout(() => {
    if (request.httpVersionMajor === 1) request.socket.destroy();
    else request.destroy();
  }, DRAIN_MS);
  const over = () => clearTimeout(late);
  request.once('end', over).once('close', over);
}
