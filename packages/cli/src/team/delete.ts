import type { Context } from '../context.ts';
import { printJson } from '../print.ts';

export async function deleteTeams(
  context: Context,
  names: string[],
  { force = false }: { force?: boolean },
): Promise<void> {
  for (const name of names)
    await context.progress.step(`removing ${name}`, () => context.thaw().teams.delete(name, { force }));
  if (context.json) await printJson({ removed: names });
}
