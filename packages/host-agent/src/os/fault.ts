/**
 * Faults for tests: `THAW_FAULT` and the file `{run}/faults` name steps, each to fail once. `label` makes the step
 * fail, `label:kill` ends the process there. Neither exists in normal use.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Fault } from './step.ts';

const KILL = ':kill';

/** Undefined when nothing asks for faults: then no step looks for them. */
export function faultsFrom(env: NodeJS.ProcessEnv, run: string): Fault | undefined {
  if (env.THAW_FAULT === undefined) return undefined;
  const once = env.THAW_FAULT.split(',').filter((entry) => entry !== '');
  const file = path.join(run, 'faults');
  return (label) => {
    const entry = takeFrom(once, label) ?? takeFromFile(file, label);
    if (entry === undefined) return;
    if (entry.endsWith(KILL)) process.kill(process.pid, 'SIGKILL');
    throw new Error(`a test made ${label} fail`);
  };
}

function takeFrom(entries: string[], label: string): string | undefined {
  const at = entries.findIndex((entry) => entry === label || entry === label + KILL);
  return at < 0 ? undefined : entries.splice(at, 1)[0];
}

function takeFromFile(file: string, label: string): string | undefined {
  let entries: string[];
  try {
    entries = readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== '');
  } catch {
    return undefined;
  }
  const taken = takeFrom(entries, label);
  if (taken !== undefined) {
    writeFileSync(`${file}.new`, entries.join('\n'));
    renameSync(`${file}.new`, file);
  }
  return taken;
}
