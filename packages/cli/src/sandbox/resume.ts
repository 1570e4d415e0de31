import { type Context, unlessInterrupted } from '../context.ts';
import { printJson } from '../print.ts';

/** Without memory it boots from its disk. Interrupted, the server still brings it to its end. */
export async function resume(context: Context, ids: string[], memory: boolean): Promise<void> {
  for (const id of ids) {
    const sandbox = await context.progress.step(`resuming ${id}`, () => {
      const work = context.thaw().sandboxes.resume(id, { memory });
      return unlessInterrupted(context, work, async () => `interrupted; the server goes on to resume ${id}`);
    });
    if (context.json) await printJson(sandbox);
  }
}
