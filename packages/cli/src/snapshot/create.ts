import { type Context, unlessInterrupted } from '../context.ts';
import { printJson, printLine } from '../print.ts';

/** Prints the new template's name. Interrupted, the server still brings it to its end. */
export async function create(
  context: Context,
  sandboxId: string,
  name: string | undefined,
  options: { overwrite?: boolean },
): Promise<void> {
  const wish = { ...(name !== undefined && { name }), ...options };
  const snapshot = await context.progress.step(`snapshotting ${sandboxId}`, () => {
    const work = context.thaw().snapshots.create(sandboxId, wish);
    return unlessInterrupted(
      context,
      work,
      async () => 'interrupted; the server goes on to make the snapshot',
    );
  });
  await (context.json ? printJson(snapshot) : printLine(snapshot.name));
}
