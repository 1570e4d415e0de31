/** Tools for a sandbox's life, its commands and its ports. */
import type { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { CommandExitError, Sandbox } from 'e2b';
import { z } from 'zod';
import { answer, forget, remember, SandboxId, sandboxOf } from './answer.ts';

const TIMEOUT_SEC = 300;
const COMMAND_TIMEOUT_SEC = 60;
const FORKS_MAX = 20;

/** By TLS, unless the listener that the domain names is the one in clear text. */
function schemeOf(host: string): 'http' | 'https' {
  const shared = process.env.E2B_SANDBOX_URL;
  if (shared === undefined || !shared.startsWith('http:')) return 'https';
  return new URL(shared).port === new URL(`http://${host}`).port ? 'http' : 'https';
}

export function addSandboxTools(server: McpServer): void {
  server.registerTool(
    'create_sandbox',
    {
      description:
        'Starts a Linux sandbox, a virtual machine, from a template or a snapshot. Answers its id.',
      inputSchema: {
        template: z.string().optional().describe('a template or snapshot; "base" unless given'),
        timeout_sec: z.number().int().positive().default(TIMEOUT_SEC),
        on_timeout: z.enum(['kill', 'pause']).default('pause'),
        env: z.record(z.string(), z.string()).optional(),
        internet: z.boolean().default(true),
      },
    },
    ({ template, timeout_sec, on_timeout, env, internet }) =>
      answer(async () => {
        const options = {
          timeoutMs: timeout_sec * 1000,
          lifecycle: { onTimeout: on_timeout },
          ...(env && { envs: env }),
          ...(!internet && { allowInternetAccess: false }),
        };
        return { sandbox_id: remember(await Sandbox.create(template ?? 'base', options)).sandboxId };
      }),
  );

  server.registerTool(
    'list_sandboxes',
    {
      description: 'Lists sandboxes that run or are paused, newest first.',
      annotations: { readOnlyHint: true },
    },
    () =>
      answer(async () => {
        const pages = Sandbox.list({ limit: 100 });
        return (await pages.nextItems()).map(({ sandboxId, state, templateId, endAt }) => ({
          sandbox_id: sandboxId,
          state,
          template: templateId,
          end_at: endAt,
        }));
      }),
  );

  server.registerTool(
    'exec',
    {
      description: 'Runs a command with bash in a sandbox. Answers its exit code and output.',
      inputSchema: {
        sandbox_id: SandboxId,
        command: z.string(),
        cwd: z.string().optional(),
        user: z.string().optional().describe('"root" for what needs it'),
        timeout_sec: z.number().positive().default(COMMAND_TIMEOUT_SEC),
        background: z.boolean().default(false).describe('true: answers the process id at once'),
      },
    },
    ({ sandbox_id, command, cwd, user, timeout_sec, background }) =>
      answer(async () => {
        const sandbox = await sandboxOf(sandbox_id);
        const options = { ...(cwd && { cwd }), ...(user && { user }) };
        if (background) {
          const handle = await sandbox.commands.run(command, { ...options, background: true, timeoutMs: 0 });
          await handle.disconnect();
          return { pid: handle.pid };
        }
        const result = await sandbox.commands
          .run(command, { ...options, timeoutMs: timeout_sec * 1000 })
          .catch((error: unknown) => {
            if (error instanceof CommandExitError) return error;
            throw error;
          });
        return { exit_code: result.exitCode, stdout: result.stdout, stderr: result.stderr };
      }),
  );

  server.registerTool(
    'pause_sandbox',
    {
      description: 'Pauses a sandbox: its memory and disk are kept, it uses nothing until it is resumed.',
      inputSchema: { sandbox_id: SandboxId },
    },
    ({ sandbox_id }) =>
      answer(async () => {
        await Sandbox.pause(sandbox_id);
        forget(sandbox_id);
        return 'paused';
      }),
  );

  server.registerTool(
    'resume_sandbox',
    {
      description: 'Resumes a paused sandbox where it was; its processes go on.',
      inputSchema: { sandbox_id: SandboxId, timeout_sec: z.number().int().positive().default(TIMEOUT_SEC) },
    },
    ({ sandbox_id, timeout_sec }) =>
      answer(async () => {
        remember(await Sandbox.connect(sandbox_id, { timeoutMs: timeout_sec * 1000 }));
        return 'running';
      }),
  );

  server.registerTool(
    'snapshot_sandbox',
    {
      description: 'Freezes a copy of a sandbox, processes included; create_sandbox starts others from it.',
      inputSchema: { sandbox_id: SandboxId, name: z.string().optional() },
    },
    ({ sandbox_id, name }) =>
      answer(async () => {
        const { snapshotId } = await Sandbox.createSnapshot(sandbox_id, name === undefined ? {} : { name });
        return { snapshot_id: snapshotId };
      }),
  );

  server.registerTool(
    'fork_sandbox',
    {
      description: 'Makes sandboxes that go on from where this one is, which goes on too. Answers their ids.',
      inputSchema: {
        sandbox_id: SandboxId,
        count: z.number().int().min(1).max(FORKS_MAX).default(1),
        timeout_sec: z.number().int().positive().default(TIMEOUT_SEC),
      },
    },
    ({ sandbox_id, count, timeout_sec }) =>
      answer(async () => {
        const forks = await Sandbox.fork(sandbox_id, { count, timeoutMs: timeout_sec * 1000 });
        return forks.map((fork) =>
          fork instanceof Error ? { error: fork.message } : { sandbox_id: remember(fork).sandboxId },
        );
      }),
  );

  server.registerTool(
    'expose_port',
    {
      description: 'Tells the URL by which a port of a sandbox is reached from outside.',
      inputSchema: { sandbox_id: SandboxId, port: z.number().int().min(1).max(65_535) },
      annotations: { readOnlyHint: true },
    },
    ({ sandbox_id, port }) =>
      answer(async () => {
        const host = (await sandboxOf(sandbox_id)).getHost(port);
        return { url: `${schemeOf(host)}://${host}` };
      }),
  );

  server.registerTool(
    'kill_sandbox',
    {
      description: 'Destroys a sandbox. Snapshots of it stay.',
      inputSchema: { sandbox_id: SandboxId },
      annotations: { destructiveHint: true },
    },
    ({ sandbox_id }) =>
      answer(async () => {
        forget(sandbox_id);
        return (await Sandbox.kill(sandbox_id)) ? 'killed' : 'there is no such sandbox';
      }),
  );
}
