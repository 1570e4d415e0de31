import type { Context } from '../context.ts';
import { printJson } from '../print.ts';

export async function deleteSnapshots(context: Context, names: string[]): Promise<void> {
  for (const name of names)
    await context.progress.step(`removing ${name}`, () => context.thaw().snapshots.delete(name));
  if (context.json) await printJson({ removed: names });
}
