/** What a guest agent answers instead of a result, as an error of our own. Nothing it says is taken on trust. */
import { Code, ConnectError } from '@connectrpc/connect';
import { type ErrorKind, ThawError } from '@thaw/api';

/** Longest message of a guest that is passed on, in UTF-16 units. */
const MESSAGE_MAX = 1024;

const KINDS: Partial<Record<Code, ErrorKind>> = {
  [Code.InvalidArgument]: 'invalid_request',
  [Code.Unauthenticated]: 'invalid_request',
  [Code.PermissionDenied]: 'invalid_request',
  [Code.FailedPrecondition]: 'invalid_request',
  [Code.NotFound]: 'not_found',
  [Code.AlreadyExists]: 'already_exists',
  [Code.ResourceExhausted]: 'exhausted',
};

/** What a call into the guest threw; a `ThawError` stays what it is. */
export function refusal(error: unknown): ThawError {
  if (error instanceof ThawError) return error;
  const connect = ConnectError.from(error);
  const kind = KINDS[connect.code];
  // What the transport makes of an answer that it cannot read has codes too; the guest said none of them.
  if (kind !== undefined && connect.isWireError) return new ThawError(kind, readable(connect.rawMessage));
  if (connect.code === Code.Unavailable || connect.code === Code.Canceled)
    return new ThawError('unavailable', 'the sandbox stopped answering', { cause: error });
  if (connect.code === Code.ResourceExhausted)
    return new ThawError('too_large', 'the answer of the guest is too large', { cause: error });
  const message = connect.isWireError ? readable(connect.rawMessage) : 'it made no sense';
  return new ThawError('agent_error', `the guest agent failed: ${message}`, { cause: error });
}

/** A guest's text in one line of bounded length. */
export function readable(text: string): string {
  const short = text.length > MESSAGE_MAX ? `${text.slice(0, MESSAGE_MAX)}…` : text;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not reach a terminal
  return short.toWellFormed().replace(/[\x00-\x1f\x7f-\x9f]+/g, ' ');
}
