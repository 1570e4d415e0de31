/** Makes single steps of the host agent fail, and knows which steps there are. */
import { globSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { TestThaw } from './harness.ts';

const SOURCES = path.join(import.meta.dirname, '../../packages/host-agent/src');
/** Given to `Steps.run`, or to what calls it; written out, or with the verb left open. */
const LABEL = /(?:steps\.run\(|steps,)\s*['`](\$\{verb\}|[a-z]+):([a-z]+(?:-[a-z]+)*)['`]/g;
const OPEN_VERB = '$'.concat('{verb}');

/** Lets the host agent listen to faults. */
export const FAULTS = { THAW_FAULT: '' };

/** The next time the step `label` is reached it fails; with `kill` the host agent dies there. */
export async function setFault(thaw: TestThaw, label: string, how: 'fail' | 'kill' = 'fail'): Promise<void> {
  await writeFile(path.join(thaw.run, 'faults'), how === 'kill' ? `${label}:kill` : label);
}

/** Whether the fault that was set has happened. */
export async function faultHappened(thaw: TestThaw): Promise<boolean> {
  return (await readFile(path.join(thaw.run, 'faults'), 'utf8')) === '';
}

/** Every step there is, as `verb:name`, or `*:name` where the verb is the caller's. */
export async function allSteps(): Promise<Set<string>> {
  const found = new Set<string>();
  for (const file of globSync('**/*.ts', { cwd: SOURCES })) {
    if (file.endsWith('.test.ts') || file.includes('fixture')) continue;
    const text = await readFile(path.join(SOURCES, file), 'utf8');
    for (const [, verb, name] of text.matchAll(LABEL))
      found.add(`${verb === OPEN_VERB ? '*' : verb}:${name}`);
  }
  return found;
}
