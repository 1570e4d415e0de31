import {
  CreateSandbox,
  ForkSandbox,
  Forks,
  ListSandboxes,
  PauseSandbox,
  ResumeSandbox,
  Sandbox,
  SandboxStats,
  UpdateSandbox,
} from '@thaw/api';
import { z } from 'zod';
import type { App } from '../http/app.ts';
import { NO_CONTENT } from '../http/openapi.ts';
import type { Plane } from '../plane.ts';
import { createSandbox } from './create.ts';
import { destroySandbox } from './destroy.ts';
import { forkSandbox } from './fork.ts';
import { listOf } from './list.ts';
import { pauseSandbox } from './pause.ts';
import { resumeSandbox } from './resume.ts';
import { type Done, requireSandbox, toSandbox } from './sandbox.ts';
import { statSandbox } from './stats.ts';
import { updateSandbox } from './update.ts';

export const SandboxParams = z.object({ id: z.string().describe('The id of a sandbox') });

export function sandboxRoutes(app: App, plane: Plane): void {
  app.post('/v1/sandboxes', {
    schema: {
      operationId: 'createSandbox',
      summary: 'Make a sandbox; it answers when its guest does',
      body: CreateSandbox,
      response: { 201: Sandbox },
    },
    handler: async (request, reply) =>
      reply.code(201).send(tell(await createSandbox(plane, request.caller!, request.body))),
  });
  app.get('/v1/sandboxes', {
    schema: {
      operationId: 'listSandboxes',
      summary: 'List sandboxes, newest first',
      querystring: ListSandboxes,
      response: { 200: z.array(Sandbox) },
    },
    handler: async (request, reply) => {
      const { items, nextToken } = await listOf(plane, request.teamId, request.query);
      if (nextToken) reply.header('X-Next-Token', nextToken);
      return items;
    },
  });
  app.get('/v1/sandboxes/:id', {
    schema: {
      operationId: 'getSandbox',
      summary: 'One sandbox',
      params: SandboxParams,
      response: { 200: Sandbox },
    },
    handler: async (request) => toSandbox(await requireSandbox(plane, request.teamId, request.params.id)),
  });
  app.get('/v1/sandboxes/:id/stats', {
    schema: {
      operationId: 'getSandboxStats',
      summary: 'Memory, page faults and processes of a running sandbox',
      params: SandboxParams,
      response: { 200: SandboxStats },
    },
    handler: (request) => statSandbox(plane, request.teamId, request.params.id),
  });
  app.patch('/v1/sandboxes/:id', {
    schema: {
      operationId: 'updateSandbox',
      summary: 'Change when a sandbox ends, what wakes it, what it may reach, its notes',
      description: 'What is left out stays as it is. `metadata` and `network` are replaced whole.',
      params: SandboxParams,
      body: UpdateSandbox,
      response: { 200: Sandbox },
    },
    handler: (request) => updateSandbox(plane, request.teamId, request.params.id, request.body),
  });
  app.delete('/v1/sandboxes/:id', {
    schema: {
      operationId: 'destroySandbox',
      summary: 'Destroy a sandbox with everything of it',
      params: SandboxParams,
      response: { 204: NO_CONTENT },
    },
    handler: async (request, reply) => {
      await destroySandbox(plane, request.teamId, request.params.id);
      return reply.code(204).send();
    },
  });
  app.post('/v1/sandboxes/:id/pause', {
    schema: {
      operationId: 'pauseSandbox',
      summary: 'Write a sandbox to disk and give back what it occupies',
      params: SandboxParams,
      body: PauseSandbox.nullish(),
      response: { 200: Sandbox },
    },
    handler: async (request) =>
      tell(await pauseSandbox(plane, request.teamId, request.params.id, request.body ?? { memory: true })),
  });
  app.post('/v1/sandboxes/:id/fork', {
    schema: {
      operationId: 'forkSandbox',
      summary: 'Make sandboxes that go on from where this one is',
      description:
        'Each has an id, name, token and random numbers of its own before any of its processes runs. The source stands still only while its memory is taken.',
      params: SandboxParams,
      body: ForkSandbox.nullish(),
      response: { 201: Forks },
    },
    handler: async (request, reply) => {
      const wish = request.body ?? { count: 1 };
      const forks = await forkSandbox(plane, request.caller!, request.params.id, wish);
      return reply.code(201).send({ forks });
    },
  });
  app.post('/v1/sandboxes/:id/resume', {
    schema: {
      operationId: 'resumeSandbox',
      summary: 'Let a paused sandbox go on, or one in `error` from its last build',
      params: SandboxParams,
      body: ResumeSandbox.nullish(),
      response: { 200: Sandbox },
    },
    handler: async (request) =>
      tell(await resumeSandbox(plane, request.teamId, request.params.id, request.body ?? { memory: true })),
  });
}

const tell = ({ row, timings }: Done): Sandbox => toSandbox(row, timings);
