import type { Context } from '../context.ts';
import { printJson } from '../print.ts';

export async function revoke(context: Context, ids: string[]): Promise<void> {
  for (const id of ids) await context.progress.step(`revoking ${id}`, () => context.thaw().keys.revoke(id));
  if (context.json) await printJson({ revoked: ids });
}
