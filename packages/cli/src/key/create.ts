import type { Context } from '../context.ts';
import { printJson, printLine } from '../print.ts';
import { keysOf, type OfTeam, type QuotaOptions, toQuota } from './quota.ts';

/** Prints the key. */
export async function create(
  context: Context,
  name: string,
  options: QuotaOptions & OfTeam & { admin?: boolean; operator?: boolean },
): Promise<void> {
  const { admin = false, operator = false } = options;
  const wish = { name, admin, operator, quota: toQuota(options) };
  const made = await keysOf(context, options).create(wish);
  await (context.json ? printJson(made) : printLine(made.key));
}
