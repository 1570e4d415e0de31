import type { Context } from '../context.ts';
import { printJson } from '../print.ts';

export async function rename(context: Context, team: string, name: string): Promise<void> {
  const renamed = await context.thaw().teams.update(team, { name });
  if (context.json) await printJson(renamed);
}
