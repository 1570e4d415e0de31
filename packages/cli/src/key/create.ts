import type { Context } from '../context.ts';
import { printJson, printLine } from '../print.ts';
import { type QuotaOptions, toQuota } from './quota.ts';

/** Prints the key. */
export async function create(
  context: Context,
  name: string,
  options: QuotaOptions & { admin?: boolean },
): Promise<void> {
  const wish = { name, admin: options.admin === true, quota: toQuota(options) };
  const made = await context.thaw().keys.create(wish);
  await (context.json ? printJson(made) : printLine(made.key));
}
