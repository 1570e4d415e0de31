import type { UpdateSandboxInput } from '@thaw/api';
import type { Context } from '../context.ts';
import { printJson } from '../print.ts';

export async function update(context: Context, id: string, change: UpdateSandboxInput): Promise<void> {
  const sandbox = await context.thaw().sandboxes.update(id, change);
  if (context.json) await printJson(sandbox);
}
