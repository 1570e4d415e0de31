import type { Context } from '../context.ts';
import { printJson } from '../print.ts';

export async function destroy(context: Context, ids: string[]): Promise<void> {
  for (const id of ids)
    await context.progress.step(`removing ${id}`, () => context.thaw().sandboxes.delete(id));
  if (context.json) await printJson({ removed: ids });
}
