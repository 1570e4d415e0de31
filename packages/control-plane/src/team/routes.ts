import { ChangeTeam, CreatedTeam, CreateTeam, DeleteTeam, TeamInfo, UpdateTeam } from '@thaw/api';
import { z } from 'zod';
import { record } from '../audit/routes.ts';
import { type Asking, adminTeam, type KeyOptions, keyRoutes, operator } from '../auth/routes.ts';
import type { App } from '../http/app.ts';
import { NO_CONTENT } from '../http/openapi.ts';
import { aboutTeam } from '../http/request.ts';
import type { Plane } from '../plane.ts';
import { deleteTeam } from './delete.ts';
import { changeOwnTeam, changeTeam, createTeam, getTeam, listAllTeams, requireTeam } from './team.ts';

const TeamParams = z.object({ team: z.string().describe('The name or id of a team') });

/** The own team for everybody; all of them for operators. */
export function teamRoutes(app: App, plane: Plane, options: KeyOptions): void {
  ownTeam(app, plane);
  administration(app, plane, options);
  keyRoutes(app, plane, {
    ...options,
    prefix: '/v1/teams/:team/keys',
    noun: 'TeamKey',
    params: TeamParams,
    whose: (request) => subject(plane, request, String((request.params as { team?: unknown }).team)),
  });
}

/** The id of a team that an operator is at work on: what is recorded of the request is recorded as that team's. */
async function subject(plane: Plane, request: Asking, nameOrId: string): Promise<string> {
  operator(request);
  const { id } = await requireTeam(plane.db, nameOrId);
  aboutTeam(id);
  return id;
}

function ownTeam(app: App, plane: Plane): void {
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
      summary: "Change the team's quota, within what it is granted",
      body: UpdateTeam,
      response: { 200: TeamInfo },
    },
    handler: (request) => changeOwnTeam(plane.db, adminTeam(request), request.body),
  });
}

function administration(app: App, plane: Plane, { forgetKey }: KeyOptions): void {
  app.post('/v1/teams', {
    schema: {
      operationId: 'createTeam',
      summary: 'Make a team with its first key, which only this answer holds; for operators',
      body: CreateTeam,
      response: { 201: CreatedTeam },
    },
    handler: async (request, reply) => {
      operator(request);
      const made = await createTeam(plane.db, request.body);
      aboutTeam(made.id);
      return reply.code(201).send(made);
    },
  });
  app.get('/v1/teams', {
    schema: {
      operationId: 'listTeams',
      summary: 'List teams, oldest first, with what their sandboxes take now; for operators',
      response: { 200: z.array(TeamInfo) },
    },
    handler: (request) => {
      operator(request);
      return listAllTeams(plane.db);
    },
  });
  app.get('/v1/teams/:team', {
    schema: {
      operationId: 'getAnyTeam',
      summary: 'One team; for operators',
      params: TeamParams,
      response: { 200: TeamInfo },
    },
    handler: async (request) => getTeam(plane.db, await subject(plane, request, request.params.team)),
  });
  app.patch('/v1/teams/:team', {
    schema: {
      operationId: 'changeTeam',
      summary: 'Rename a team, or change what it may have at once; for operators',
      params: TeamParams,
      body: ChangeTeam,
      response: { 200: TeamInfo },
    },
    handler: async (request) =>
      changeTeam(plane.db, await subject(plane, request, request.params.team), request.body),
  });
  app.delete('/v1/teams/:team', {
    schema: {
      operationId: 'deleteTeam',
      summary: 'Delete a team that has no sandbox and no template, or destroy them first; for operators',
      params: TeamParams,
      querystring: DeleteTeam,
      response: { 204: NO_CONTENT },
    },
    handler: async (request, reply) => {
      const id = await subject(plane, request, request.params.team);
      const force = request.query.force === 'true';
      await deleteTeam(plane, id, {
        force,
        forgetKey,
        destroyed: (verb, target) =>
          record(plane, request, { verb, targets: [target], outcome: 'done', status: null }),
      });
      return reply.code(204).send();
    },
  });
}
