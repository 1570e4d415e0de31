import type { Context } from '../context.ts';
import { printFacts, printJson } from '../print.ts';

/** What a running sandbox uses now, and how much of its memory has come back. */
export async function stat(context: Context, id: string): Promise<void> {
  const stats = await context.thaw().sandboxes.stats(id);
  await (context.json ? printJson(stats) : printFacts(stats));
}
