/** Tools for a sandbox's files. */
import type { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { z } from 'zod';
import { answer, SandboxId, sandboxOf } from './answer.ts';

const TEXT_MAX = 2 ** 20;
const Path = z.string().describe("absolute, or relative to the user's home");

export function addFileTools(server: McpServer): void {
  server.registerTool(
    'write_file',
    {
      description: 'Writes a text file in a sandbox; folders on the way are made.',
      inputSchema: { sandbox_id: SandboxId, path: Path, content: z.string() },
    },
    ({ sandbox_id, path, content }) =>
      answer(async () => {
        const written = await (await sandboxOf(sandbox_id)).files.write(path, content);
        return { path: written.path };
      }),
  );

  server.registerTool(
    'read_file',
    {
      description: 'Reads a text file of a sandbox, at most 1 MiB.',
      inputSchema: { sandbox_id: SandboxId, path: Path },
      annotations: { readOnlyHint: true },
    },
    ({ sandbox_id, path }) =>
      answer(async () => {
        const { files } = await sandboxOf(sandbox_id);
        const { size } = await files.getInfo(path);
        if (size > TEXT_MAX) throw new Error(`${path} has ${size} bytes: read a part of it with exec`);
        return files.read(path);
      }),
  );

  server.registerTool(
    'list_files',
    {
      description: 'Lists a folder of a sandbox.',
      inputSchema: { sandbox_id: SandboxId, path: Path, depth: z.number().int().min(1).default(1) },
      annotations: { readOnlyHint: true },
    },
    ({ sandbox_id, path, depth }) =>
      answer(async () => {
        const entries = await (await sandboxOf(sandbox_id)).files.list(path, { depth });
        return entries.map((entry) => ({ path: entry.path, type: entry.type, size: entry.size }));
      }),
  );
}
