import { type Fork, ThawError } from '@thaw/api';
import { type Context, unlessInterrupted } from '../context.ts';
import { printJson, printLine } from '../print.ts';

/** Prints the new ids, one a line. Interrupted, it removes what the server makes meanwhile. */
export async function fork(context: Context, id: string, count: number): Promise<void> {
  const thaw = context.thaw();
  const work = thaw.sandboxes.fork(id, { count });
  const forks = await context.progress.step(`forking ${id}`, () =>
    unlessInterrupted(context, work, async () => {
      const made = startedOf(await work.catch(() => []));
      for (const sandbox of made) await thaw.sandboxes.delete(sandbox.id);
      return 'interrupted; the forks are removed';
    }),
  );
  if (context.json) await printJson(forks);
  else for (const sandbox of startedOf(forks)) await printLine(sandbox.id);
  const failed = forks.flatMap((one) => ('error' in one ? [one.error] : []));
  if (failed.length > 0)
    throw new ThawError(failed[0]!.code, `${failed.length} of ${count} did not start: ${failed[0]!.message}`);
}

function startedOf(forks: readonly Fork[]) {
  return forks.flatMap((one) => ('sandbox' in one ? [one.sandbox] : []));
}
