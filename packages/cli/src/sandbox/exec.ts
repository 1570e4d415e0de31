/** Runs a command in a sandbox as if it were here: its output, its exit code, and with -i its input. */
import type { ExecStream } from '@thaw/sdk';
import type { Context } from '../context.ts';
import { printJson, write } from '../print.ts';

export interface ExecOptions {
  interactive?: boolean;
  user?: string;
  cwd?: string;
  env?: Record<string, string>;
  timeout?: number;
}

/** Resolves with the command's exit code. Interrupted, the command is stopped first. */
export async function exec(
  context: Context,
  id: string,
  argv: string[],
  options: ExecOptions,
): Promise<number> {
  const { interactive = false, timeout = 0, user, cwd, env } = options;
  // Options end at the id; a `--` that says so again is not a command.
  const [cmd = '', ...args] = argv[0] === '--' ? argv.slice(1) : argv;
  const place = { ...(user && { user }), ...(cwd && { cwd }), ...(env && { env }) };
  const run = context
    .thaw()
    .sandboxes.execStream(id, { cmd, args, stdin: interactive, timeout_sec: timeout, ...place });
  const release = stopWhenAborted(run, context.signal);
  try {
    if (interactive) void sendInput(run);
    const captured = context.json ? await capture(run) : await passOn(run);
    const { exitCode, error } = await run.result;
    if (context.json)
      await printJson({ sandbox_id: id, cmd, ...captured, exit_code: exitCode, ...(error && { error }) });
    else if (error !== undefined && exitCode !== 0) await write(process.stderr, `thaw: ${error}\n`);
    return exitCode;
  } finally {
    release();
    run.close();
    process.stdin.destroy();
  }
}

/** The first signal asks the command to end, the second hangs up, which kills it. */
function stopWhenAborted(run: ExecStream, signal: AbortSignal): () => void {
  const stop = () => {
    run.stop().catch(() => {});
    process.once('SIGINT', hangUp);
    process.once('SIGTERM', hangUp);
  };
  const hangUp = () => run.close();
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });
  return () => {
    signal.removeEventListener('abort', stop);
    process.removeListener('SIGINT', hangUp);
    process.removeListener('SIGTERM', hangUp);
  };
}

/** What goes wrong here the command's end tells better: its input is closed, or it is gone. */
async function sendInput(run: ExecStream): Promise<void> {
  try {
    for await (const chunk of process.stdin) await run.write(chunk as Buffer);
    await run.closeStdin();
  } catch {
    await run.closeStdin().catch(() => {});
  }
}

async function passOn(run: ExecStream): Promise<undefined> {
  try {
    for await (const { stream, data } of run) await write(process[stream], data);
  } catch (error) {
    // Whoever read our output has gone (`| head`): so goes the command.
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
    await run.stop();
    await run.wait();
  }
}

async function capture(
  run: ExecStream,
): Promise<{ stdout: string; stderr: string; encoding: 'utf-8' | 'base64' }> {
  const chunks: Record<'stdout' | 'stderr', Uint8Array[]> = { stdout: [], stderr: [] };
  for await (const { stream, data } of run) chunks[stream].push(data);
  const stdout = Buffer.concat(chunks.stdout);
  const stderr = Buffer.concat(chunks.stderr);
  const encoding = [stdout, stderr].every(isText) ? 'utf-8' : 'base64';
  return { stdout: stdout.toString(encoding), stderr: stderr.toString(encoding), encoding };
}

function isText(data: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(data);
    return true;
  } catch {
    return false;
  }
}
