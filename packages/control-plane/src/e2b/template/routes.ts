/** Templates of the E2B API: what there is, under which tags, and who may have it. They are made by snapshots. */
import { ThawError } from '@thaw/api';
import { z } from 'zod';
import type { App } from '../../http/app.ts';
import { NO_CONTENT } from '../../http/openapi.ts';
import type { Plane } from '../../plane.ts';
import { deleteUnused } from '../../template/delete.ts';
import { baseOf, parseName, tagged } from '../../template/name.ts';
import { findNamedTags, notFound } from '../../template/resolve.ts';
import { assignTags, unassignTags } from '../../template/tag.ts';
import { E2bPage, tellNext } from '../page.ts';
import { listE2bTemplates, spawnsOf } from './list.ts';
import {
  AssignedTags,
  AssignTags,
  E2bTemplate,
  RemoveTags,
  TemplateAlias,
  TemplateTag,
  TemplateWithBuilds,
  UpdateTemplate,
} from './schema.ts';
import { buildIdOf, fullName, type Tagged, toTag, toTemplateWithBuilds } from './template.ts';

const Params = z.object({ id: z.string() });

export function templateRoutes(app: App, plane: Plane): void {
  app.get('/templates', {
    schema: { response: { 200: z.array(E2bTemplate) } },
    handler: async (request) => (await listE2bTemplates(plane, request.teamId)).items,
  });
  app.get('/v2/templates', {
    schema: { querystring: E2bPage, response: { 200: z.array(E2bTemplate) } },
    handler: async (request, reply) => {
      const { limit, nextToken: token } = request.query;
      const { items, nextToken } = await listE2bTemplates(plane, request.teamId, limit, token);
      tellNext(reply, nextToken);
      return items;
    },
  });
  app.get('/templates/:id', {
    schema: { params: Params, response: { 200: TemplateWithBuilds } },
    handler: async (request) => {
      const rows = await requireTags(plane, request.teamId, request.params.id);
      return toTemplateWithBuilds(rows, await spawnsOf(plane, request.teamId, rows));
    },
  });
  app.delete('/templates/:id', {
    schema: { params: Params, response: { 204: NO_CONTENT } },
    handler: async (request, reply) => {
      await deleteUnused(plane, request.teamId, request.params.id);
      return reply.code(204).send();
    },
  });
  app.patch('/templates/:id', {
    schema: { params: Params, body: UpdateTemplate, response: { 200: z.object({}) } },
    handler: async (request) => {
      await checkUpdate(plane, request.teamId, request.params.id, request.body);
      return {};
    },
  });
  app.patch('/v2/templates/:id', {
    schema: {
      params: Params,
      body: UpdateTemplate,
      response: { 200: z.object({ names: z.array(z.string()) }) },
    },
    handler: async (request) => {
      const name = fullName((await checkUpdate(plane, request.teamId, request.params.id, request.body))[0]);
      return { names: name === undefined ? [] : [name] };
    },
  });
  app.get('/templates/aliases/:id', {
    schema: { params: Params, response: { 200: TemplateAlias } },
    handler: async (request) => {
      const [row] = await requireTags(plane, request.teamId, request.params.id);
      return { templateID: baseOf(row.id), public: row.team_id === null };
    },
  });
  tagRoutes(app, plane);
}

function tagRoutes(app: App, plane: Plane): void {
  app.get('/templates/:id/tags', {
    schema: { params: Params, response: { 200: z.array(TemplateTag) } },
    handler: async (request) =>
      (await requireTags(plane, request.teamId, request.params.id)).map((row) => toTag(row)),
  });
  app.post('/templates/tags', {
    schema: { body: AssignTags, response: { 201: AssignedTags } },
    handler: async (request, reply) => {
      const { target, tags } = request.body;
      const row = await assignTags(plane, request.teamId, target, tags);
      return reply.code(201).send({ buildID: buildIdOf(row), tags });
    },
  });
  app.delete('/templates/tags', {
    schema: { body: RemoveTags, response: { 204: NO_CONTENT } },
    handler: async (request, reply) => {
      await unassignTags(plane, request.teamId, request.body.name, request.body.tags);
      return reply.code(204).send();
    },
  });
}

/** All tags of the template; if the reference says a tag, there must be that one. */
async function requireTags(plane: Plane, teamId: string, ref: string): Promise<Tagged> {
  const name = parseName(ref);
  const [newest, ...older] = await findNamedTags(plane, teamId, name);
  if (newest === undefined) throw notFound(ref);
  const rows: Tagged = [newest, ...older];
  const wanted = name.tag === undefined ? undefined : tagged(baseOf(newest.id), name.tag);
  if (wanted !== undefined && !rows.some(({ id }) => id === wanted)) throw notFound(ref);
  return rows;
}

/** Who may have a template is all that could be changed, and it is always the team alone. */
async function checkUpdate(
  plane: Plane,
  teamId: string,
  ref: string,
  wish: z.infer<typeof UpdateTemplate>,
): Promise<Tagged> {
  const rows = await requireTags(plane, teamId, ref);
  if (rows[0].team_id === null) throw new ThawError('forbidden', `${rows[0].name} is a base template`);
  if (wish.public)
    throw new ThawError('invalid_request', "public: a template is its team's; it cannot be made public");
  return rows;
}
