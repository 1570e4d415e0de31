import type { Context } from '../context.ts';
import { printFacts, printJson } from '../print.ts';

export async function get(context: Context, id: string): Promise<void> {
  const sandbox = await context.thaw().sandboxes.get(id);
  await (context.json ? printJson(sandbox) : printFacts(sandbox));
}
