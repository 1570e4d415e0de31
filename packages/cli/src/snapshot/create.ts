import type { SnapshotOptions } from '@thaw/sdk';
import { type Context, unlessInterrupted } from '../context.ts';
import { printJson, printLine } from '../print.ts';

interface WarmUpOptions {
  run?: string[];
  ready?: string;
  warmUpTimeout?: number;
}

type Options = WarmUpOptions & { overwrite?: boolean };

/** Prints the new template's name. Interrupted, the server still brings it to its end. */
export async function create(
  context: Context,
  sandboxId: string,
  name: string | undefined,
  { overwrite, ...warmUp }: Options,
): Promise<void> {
  const wish = {
    ...(name !== undefined && { name }),
    ...(overwrite && { overwrite }),
    ...warmUpOf(warmUp),
  };
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

function warmUpOf({ run, ready, warmUpTimeout }: WarmUpOptions): SnapshotOptions {
  if (run === undefined && ready === undefined) return {};
  const limit = warmUpTimeout === undefined ? {} : { timeout_sec: warmUpTimeout };
  return { warm_up: { ...(run && { run }), ...(ready !== undefined && { ready }), ...limit } };
}
