import type { Context } from '../context.ts';
import { printJson } from '../print.ts';
import { keysOf, type OfTeam } from './quota.ts';

export async function revoke(context: Context, ids: string[], options: OfTeam): Promise<void> {
  const keys = keysOf(context, options);
  for (const id of ids) await context.progress.step(`revoking ${id}`, () => keys.revoke(id));
  if (context.json) await printJson({ revoked: ids });
}
