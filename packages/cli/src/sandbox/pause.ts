import { type Context, unlessInterrupted } from '../context.ts';
import { printJson } from '../print.ts';

/** Interrupted, the server still brings it to its end. */
export async function pause(context: Context, ids: string[], memory: boolean): Promise<void> {
  for (const id of ids) {
    const sandbox = await context.progress.step(`pausing ${id}`, () => {
      const work = context.thaw().sandboxes.pause(id, { memory });
      return unlessInterrupted(context, work, async () => `interrupted; the server goes on to pause ${id}`);
    });
    if (context.json) await printJson(sandbox);
  }
}
