import type { CreateSandboxInput } from '@thaw/api';
import { type Context, unlessInterrupted } from '../context.ts';
import { printJson, printLine } from '../print.ts';

/** Prints the new sandbox's id. Interrupted, it removes what the server makes meanwhile. */
export async function create(context: Context, wish: CreateSandboxInput): Promise<void> {
  const thaw = context.thaw();
  const work = thaw.sandboxes.create(wish);
  const shown = context.progress.step(`creating a sandbox of ${wish.template ?? 'minimal'}`, () =>
    unlessInterrupted(context, work, async () => {
      const made = await work.catch(() => undefined);
      if (made !== undefined) await thaw.sandboxes.delete(made.id);
      return 'interrupted; the sandbox is removed';
    }),
  );
  const sandbox = await shown;
  await (context.json ? printJson(sandbox) : printLine(sandbox.id));
}
