import { ApiKeyInfo, CreatedKey, CreateKey, ThawError, UpdateKey } from '@thaw/api';
import { z } from 'zod';
import type { App } from '../http/app.ts';
import { NO_CONTENT } from '../http/openapi.ts';
import type { Plane } from '../plane.ts';
import type { Caller } from './key.ts';
import { type Administrator, changeKey, createKey, forOperators, listAllKeys, revokeKey } from './keys.ts';

export interface KeyOptions {
  /** Called when a key was revoked. */
  forgetKey: (keyId: string) => void;
}

/** What a request says about who asks. */
export interface Asking {
  caller: Caller | undefined;
  params: unknown;
}

export interface KeyRoutes extends KeyOptions {
  /** The path of the keys. */
  prefix: string;
  /** What the `operationId`s call one. */
  noun: string;
  /** Of that path. */
  params: z.ZodObject;
  /** The id of the team whose keys they are. Throws `forbidden` for a caller who may not manage them. */
  whose: (request: Asking) => Promise<string>;
}

const KeyId = { id: z.string().describe('The id of a key') };

/** The keys of the caller's own team. */
export function ownKeyRoutes(app: App, plane: Plane, options: KeyOptions): void {
  const whose = async (request: Asking) => adminTeam(request);
  keyRoutes(app, plane, { ...options, prefix: '/v1/keys', noun: 'Key', params: z.object({}), whose });
}

export function keyRoutes(app: App, plane: Plane, options: KeyRoutes): void {
  const { prefix, noun, params, whose, forgetKey } = options;
  const ofOne = params.extend(KeyId) as unknown as z.ZodObject<typeof KeyId>;
  app.post(prefix, {
    schema: {
      operationId: `create${noun}`,
      summary: 'Make an API key, with a quota of its own; only this answer holds it',
      params,
      body: CreateKey,
      response: { 201: CreatedKey },
    },
    handler: async (request, reply) =>
      reply.code(201).send(await createKey(plane.db, await whose(request), request.body, by(request))),
  });
  app.get(prefix, {
    schema: {
      operationId: `list${noun}s`,
      summary: 'List API keys, oldest first, with what their sandboxes take now',
      params,
      response: { 200: z.array(ApiKeyInfo) },
    },
    handler: async (request) => listAllKeys(plane.db, await whose(request)),
  });
  app.patch(`${prefix}/:id`, {
    schema: {
      operationId: `update${noun}`,
      summary: 'Rename an API key or change its quota',
      params: ofOne,
      body: UpdateKey,
      response: { 200: ApiKeyInfo },
    },
    handler: async (request) =>
      changeKey(plane.db, await whose(request), request.params.id, request.body, by(request)),
  });
  app.delete(`${prefix}/:id`, {
    schema: {
      operationId: `revoke${noun}`,
      summary: 'Revoke an API key; its sandboxes go on',
      params: ofOne,
      response: { 204: NO_CONTENT },
    },
    handler: async (request, reply) => {
      const { id } = request.params;
      await revokeKey(plane.db, await whose(request), id, by(request));
      forgetKey(id);
      return reply.code(204).send();
    },
  });
}

function by({ caller }: Asking): Administrator {
  return { operator: caller?.operator === true };
}

/** The caller's own team, which it may administrate. */
export function adminTeam({ caller }: Pick<Asking, 'caller'>): string {
  if (!caller?.admin) throw new ThawError('forbidden', 'this API key may not manage keys and quotas');
  return caller.teamId;
}

/** Throws `forbidden` for a caller that may not administrate all teams. */
export function operator({ caller }: Pick<Asking, 'caller'>): void {
  if (!caller?.operator) throw forOperators();
}
