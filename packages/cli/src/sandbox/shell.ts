/** A shell in a sandbox, on the terminal that one sits at: keys, size and exit code pass through. */
import { ThawError } from '@thaw/api';
import type { ExecStream } from '@thaw/sdk';
import { type Context, Interrupted } from '../context.ts';
import { write } from '../print.ts';

export interface ShellOptions {
  user?: string;
  cwd?: string;
  env?: Record<string, string>;
}

/** bash where there is one; a login shell, as at a console. */
const LOGIN = 'if [ -x /bin/bash ]; then exec /bin/bash -l; fi; exec /bin/sh -l';

/** Resolves with the shell's exit code. */
export async function shell(context: Context, id: string, options: ShellOptions): Promise<number> {
  const { stdin, stdout } = process;
  if (!stdin.isTTY || !stdout.isTTY) {
    throw new ThawError(
      'invalid_request',
      'a shell needs a terminal; without one there is `thaw sandbox exec -i`',
    );
  }
  const { user, cwd, env } = options;
  const run = context.thaw().sandboxes.execStream(id, {
    cmd: '/bin/sh',
    args: ['-c', LOGIN],
    pty: size(),
    env: { TERM: process.env.TERM || 'xterm', ...env },
    ...(user && { user }),
    ...(cwd && { cwd }),
  });
  using undo = new DisposableStack();
  undo.defer(() => run.close());
  undo.defer(() => stdin.destroy());
  const hangUp = () => run.close();
  context.signal.addEventListener('abort', hangUp, { once: true });
  undo.defer(() => context.signal.removeEventListener('abort', hangUp));
  if (context.signal.aborted) hangUp();

  try {
    // Until the shell is there, Ctrl-C is meant for us.
    await run.pid;
    stdin.setRawMode(true);
    undo.defer(() => stdin.setRawMode(false));
    const resize = () => void run.resize(size()).catch(() => {});
    stdout.on('resize', resize);
    undo.defer(() => stdout.off('resize', resize));
    // The window may have changed while the shell started.
    resize();
    void typed(run);
    for await (const { data } of run) await write(stdout, data);
    return (await run.result).exitCode;
  } catch (error) {
    throw context.signal.aborted ? new Interrupted() : error;
  }
}

function size(): { cols: number; rows: number } {
  const { columns, rows } = process.stdout;
  // A terminal that does not know its size says 0.
  return { cols: columns || 80, rows: rows || 24 };
}

/** What goes wrong here the shell's end tells better. */
async function typed(run: ExecStream): Promise<void> {
  try {
    for await (const chunk of process.stdin) await run.write(chunk as Buffer);
  } catch {
    run.close();
  }
}
