import { ApiKeyInfo, CreatedKey, CreateKey, TeamInfo, ThawError, UpdateKey, UpdateTeam } from '@thaw/api';
import { z } from 'zod';
import type { App } from '../http/app.ts';
import { NO_CONTENT } from '../http/openapi.ts';
import type { Plane } from '../plane.ts';
import type { Caller } from './key.ts';
import { changeKey, changeTeam, createKey, getTeam, listAllKeys, revokeKey } from './keys.ts';

export interface KeyOptions {
  /** Called when a key was revoked. */
  forgetKey: (keyId: string) => void;
}

const KeyParams = z.object({ id: z.string().describe('The id of a key') });

/** For keys that may administrate, and always for the caller's own team. Everybody may see what the team has. */
export function keyRoutes(app: App, plane: Plane, { forgetKey }: KeyOptions): void {
  app.post('/v1/keys', {
    schema: {
      operationId: 'createKey',
      summary: 'Make an API key, with a quota of its own; only this answer holds it',
      body: CreateKey,
      response: { 201: CreatedKey },
    },
    handler: async (request, reply) =>
      reply.code(201).send(await createKey(plane.db, adminTeam(request), request.body)),
  });
  app.get('/v1/keys', {
    schema: {
      operationId: 'listKeys',
      summary: 'List API keys, oldest first, with what their sandboxes take now',
      response: { 200: z.array(ApiKeyInfo) },
    },
    handler: (request) => listAllKeys(plane.db, adminTeam(request)),
  });
  app.patch('/v1/keys/:id', {
    schema: {
      operationId: 'updateKey',
      summary: 'Rename an API key or change its quota',
      params: KeyParams,
      body: UpdateKey,
      response: { 200: ApiKeyInfo },
    },
    handler: (request) => changeKey(plane.db, adminTeam(request), request.params.id, request.body),
  });
  app.delete('/v1/keys/:id', {
    schema: {
      operationId: 'revokeKey',
      summary: 'Revoke an API key; its sandboxes go on',
      params: KeyParams,
      response: { 204: NO_CONTENT },
    },
    handler: async (request, reply) => {
      await revokeKey(plane.db, adminTeam(request), request.params.id);
      forgetKey(request.params.id);
      return reply.code(204).send();
    },
  });
  app.get('/v1/team', {
    schema: {
      operationId: 'getTeam',
      summary: 'The quota of the team, and what its sandboxes take now',
      response: { 200: TeamInfo },
    },
    handler: (request) => getTeam(plane.db, request.teamId),
  });
  app.patch('/v1/team', {
    schema: {
      operationId: 'updateTeam',
      summary: "Change the team's quota",
      body: UpdateTeam,
      response: { 200: TeamInfo },
    },
    handler: (request) => changeTeam(plane.db, adminTeam(request), request.body),
  });
}

function adminTeam({ caller }: { caller: Caller | undefined }): string {
  if (!caller?.admin) throw new ThawError('forbidden', 'this API key may not manage keys and quotas');
  return caller.teamId;
}
