import { ThawError } from '@thaw/api';
import type { FastifyRequest } from 'fastify';

/** An empty body is none. Keys that would reach into a prototype are refused. */
export async function parseJson(_request: FastifyRequest, text: string | Buffer): Promise<unknown> {
  const source = text.toString();
  if (source.trim() === '') return undefined;
  try {
    return JSON.parse(source, refusePrototype);
  } catch (error) {
    if (error instanceof ThawError) throw error;
    throw new ThawError('invalid_request', 'the body is not valid JSON', { cause: error });
  }
}

function refusePrototype(key: string, value: unknown): unknown {
  if (key === '__proto__')
    throw new ThawError('invalid_request', 'the body has a key that is not allowed: __proto__');
  return value;
}
