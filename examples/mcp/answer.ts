/** How a tool's result or failure is told to the agent. */
import type { CallToolResult } from '@modelcontextprotocol/sdk/types.js';
import { Sandbox } from 'e2b';
import { z } from 'zod';

export const SandboxId = z.string().describe('of create_sandbox, fork_sandbox or list_sandboxes');

/** A failure is an answer that the agent can act on. */
export async function answer(work: () => Promise<unknown>): Promise<CallToolResult> {
  try {
    const result = await work();
    const text = typeof result === 'string' ? result : JSON.stringify(result);
    return { content: [{ type: 'text', text }] };
  } catch (error) {
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    return { content: [{ type: 'text', text }], isError: true };
  }
}

/** Handles of the sandboxes that were used; asking for one that is paused does not wake it. */
const handles = new Map<string, Promise<Sandbox>>();

export function remember(sandbox: Sandbox): Sandbox {
  handles.set(sandbox.sandboxId, Promise.resolve(sandbox));
  return sandbox;
}

export function forget(id: string): void {
  handles.delete(id);
}

/** Connects once; a sandbox that is paused is resumed by that. */
export function sandboxOf(id: string): Promise<Sandbox> {
  const known = handles.get(id);
  if (known !== undefined) return known;
  const connecting = Sandbox.connect(id);
  handles.set(id, connecting);
  connecting.catch(() => handles.delete(id));
  return connecting;
}
