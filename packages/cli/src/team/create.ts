import type { Context } from '../context.ts';
import { type QuotaOptions, toQuota } from '../key/quota.ts';
import { printJson, printLine } from '../print.ts';

/** Prints the team's first key. */
export async function create(context: Context, name: string, options: QuotaOptions): Promise<void> {
  const made = await context.thaw().teams.create({ name, granted: toQuota(options) });
  await (context.json ? printJson(made) : printLine(made.key.key));
}
