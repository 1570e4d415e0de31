import { type SandboxEvent, ThawError } from '@thaw/api';
import type { Context } from '../context.ts';
import { printJson, printLine, printTable, write } from '../print.ts';

export interface LogsOptions {
  events?: boolean;
  console?: boolean;
}

/** Oldest first, as a log is read. A sandbox that was destroyed has no console any more. */
export async function logs(context: Context, id: string, options: LogsOptions): Promise<void> {
  const { sandboxes } = context.thaw();
  const both = options.events === options.console;
  const events = both || options.events ? (await Array.fromAsync(sandboxes.events(id))).reverse() : undefined;
  const said = both || options.console ? await sandboxes.logs(id).catch(unlessGone(both)) : undefined;
  if (context.json)
    return printJson({ ...(events && { events }), ...(said !== undefined && { console: said }) });
  if (events) await printTable(['WHEN', 'WHAT', 'BY', 'MS', 'OUTCOME'], events.map(row));
  if (said === undefined || said === '') return;
  if (events) await printLine('');
  await write(process.stdout, said.endsWith('\n') ? said : `${said}\n`);
}

function row({ at, verb, actor, ms, outcome, message, timings_ms = {} }: SandboxEvent): string[] {
  const steps = Object.entries(timings_ms)
    .toSorted(([, a], [, b]) => b - a)
    .slice(0, 3)
    .map(([step, took]) => `${step} ${took.toFixed(1)}`);
  const details = [outcome, message, steps.join(', ')].filter((part) => part !== undefined && part !== '');
  return [at, verb, actor, ms.toFixed(1), details.join('; ')];
}

const unlessGone = (mayBeGone: boolean) => (error: unknown) => {
  if (mayBeGone && error instanceof ThawError && error.kind === 'not_found') return undefined;
  throw error;
};
