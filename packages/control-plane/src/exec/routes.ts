import { Exec, ExecResult, ThawError } from '@thaw/api';
import { z } from 'zod';
import { record } from '../audit/routes.ts';
import type { VerifyKey } from '../auth/key.ts';
import type { App } from '../http/app.ts';
import type { Plane } from '../plane.ts';
import { checkEnter } from '../sandbox/enter.ts';
import { SandboxParams } from '../sandbox/routes.ts';
import { exec } from './exec.ts';
import { Messages } from './socket.ts';
import { execStream } from './stream.ts';

export interface ExecOptions {
  verifyKey: VerifyKey;
  checkOrigin: (origin: string | undefined) => void;
  pingEveryMs: number;
}

export function execRoutes(app: App, plane: Plane, options: ExecOptions): void {
  app.post('/v1/sandboxes/:id/exec', {
    schema: {
      operationId: 'exec',
      summary: 'Run a program to its end',
      params: SandboxParams,
      body: Exec,
      response: { 200: ExecResult },
    },
    handler: (request) => exec(plane, request.teamId, request.params.id, request.body),
  });
  app.route({
    method: 'GET',
    url: '/v1/sandboxes/:id/exec/stream',
    config: {
      keyInFirstMessage: true,
      audited: true,
      describe: {
        socket: { receives: ['StreamAuth', 'StreamStart', 'StreamInput'], sends: ['StreamOutput'] },
      },
    },
    schema: {
      operationId: 'execStream',
      summary: 'A WebSocket: run a program with its output as it comes',
      description:
        'The key comes as a header or as the first message. One `start` begins the program; it ends with `exit`, then the socket closes with 1000.',
      params: SandboxParams,
      response: { 101: z.undefined().describe('The WebSocket is open.') },
    },
    // What is wrong before the upgrade is an HTTP answer.
    preHandler: async (request) => {
      options.checkOrigin(request.headers.origin);
      if (request.teamId) await checkEnter(plane, request.teamId, request.params.id);
    },
    handler: () => {
      throw new ThawError('invalid_request', 'this path is a WebSocket', { status: 426 });
    },
    wsHandler: (socket, request) => {
      const { teamId } = request;
      const messages = new Messages(socket, options.pingEveryMs);
      return execStream(plane, messages, {
        teamId,
        sandboxId: request.params.id,
        verifyKey: options.verifyKey,
        authenticated: (caller) => {
          request.caller = caller;
        },
        decided: (refusal) => record(plane, request, { outcome: refusal ?? 'done', status: null }),
      });
    },
  });
}
