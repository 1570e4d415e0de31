/** `thaw`: one process, one command, one exit code. */
import { ThawError } from '@thaw/api';
import { type Command, CommanderError } from 'commander';
import { connect, readConfig } from './config.ts';
import { Interrupted } from './context.ts';
import { buildProgram } from './program.ts';
import { chooseProgress } from './progress.ts';

const EXIT = { error: 1, usage: 2, interrupted: 130 } as const;

const controller = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => controller.abort(new Interrupted()));
}
// A reader that goes away is noticed by whoever writes; without a listener it would end the process with a trace.
process.stdout.on('error', () => {});

let asJson = false;
const config = readConfig(process.env);
const program = buildProgram({
  context({ json = false }) {
    asJson = json;
    return { thaw: () => connect(config), json, progress: chooseProgress(json), signal: controller.signal };
  },
  async up({ json = false, verbose = false, tlsCert, tlsKey, insecure = false, drain = false }) {
    asJson = json;
    // The other commands need nothing of it.
    const { up } = await import('./up/up.ts');
    const { tlsFiles } = await import('./up/listen.ts');
    const { THAW_TLS_CERT, THAW_TLS_KEY, THAW_INSECURE } = process.env;
    const tls = tlsFiles(tlsCert ?? (THAW_TLS_CERT || undefined), tlsKey ?? (THAW_TLS_KEY || undefined));
    const reach = { tls, insecure: insecure || THAW_INSECURE === '1' };
    const options = { config, env: process.env, json, drain, verbose: verbose || !process.stderr.isTTY };
    return up({ ...options, ...reach, progress: chooseProgress(json), signal: controller.signal });
  },
  exit(code) {
    process.exitCode = code;
  },
});

function exitInsteadOfEnding(command: Command): void {
  command.exitOverride();
  for (const child of command.commands) exitInsteadOfEnding(child);
}

/** One plain line on standard error, or JSON where JSON was asked for; the exit code. */
function tell(error: unknown): number {
  // commander has printed what it wants to say.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT.usage;
  const kind = error instanceof ThawError ? error.kind : 'internal';
  const message = error instanceof Error ? error.message : String(error);
  const text = asJson ? JSON.stringify({ error: { code: kind, message } }) : `thaw: ${message}`;
  process.stderr.write(`${text}\n`);
  return error instanceof Interrupted || controller.signal.aborted ? EXIT.interrupted : EXIT.error;
}

exitInsteadOfEnding(program);
try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = tell(error);
}
// Sockets kept alive for a next request would delay the end; output was awaited by whoever wrote it.
process.exit();
