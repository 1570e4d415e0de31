/**
 * Runs cases with one version of the JavaScript SDK, which reads E2B_* from the environment. A line of JSON for each:
 * `{"case","outcome":"passed"|"failed"|"missing","ms","error"}`.
 *
 *   node main.ts --package e2b --mode plain|tls CASE…
 */
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { commands } from './commands.ts';
import { errors } from './errors.ts';
import { files } from './files.ts';
import { filesMore } from './files-more.ts';
import { git } from './git.ts';
import { lifecycle } from './lifecycle.ts';
import { network } from './network.ts';
import { ports } from './ports.ts';
import { pty } from './pty.ts';
import { sandboxes } from './sandboxes.ts';
import { snapshots } from './snapshots.ts';
import { type Cases, type Mode, type Sdk, Stage } from './stage.ts';
import { trouble } from './trouble.ts';

/** A case is one that waits for something that never comes after this time. */
const CASE_TIMEOUT_MS = 240_000;

const cases: Cases = {
  ...sandboxes,
  ...lifecycle,
  ...snapshots,
  ...commands,
  ...pty,
  ...files,
  ...filesMore,
  ...git,
  ...ports,
  ...network,
  ...errors,
  ...trouble,
};

const { values, positionals } = parseArgs({
  options: { package: { type: 'string', default: 'e2b' }, mode: { type: 'string', default: 'plain' } },
  allowPositionals: true,
});

async function run(name: string, stage: Stage): Promise<void> {
  const started = performance.now();
  const say = (outcome: string, error?: string) => {
    const ms = Math.round(performance.now() - started);
    process.stdout.write(`${JSON.stringify({ case: name, outcome, ms, ...(error && { error }) })}\n`);
  };
  const body = cases[name];
  if (body === undefined) return say('missing');
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error('it took too long')), CASE_TIMEOUT_MS);
  try {
    await Promise.race([body(stage), late.promise]);
    clearTimeout(timer);
    await stage.end(false);
    say('passed');
  } catch (error) {
    clearTimeout(timer);
    await stage.end(true);
    say('failed', error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
}

const { default: _, ...sdk } = (await import(values.package)) as Sdk & { default: unknown };
const { version } = createRequire(import.meta.url)(`${values.package}/package.json`) as { version: string };
const stage = new Stage(sdk as Sdk, version, values.mode as Mode);
// What an SDK drops on the floor is a finding of the case that runs, not the end of the run.
process.on('unhandledRejection', (error) => process.stderr.write(`unhandled: ${String(error)}\n`));
for (const name of positionals) await run(name, stage);
await stage.close();
process.exit(0);
