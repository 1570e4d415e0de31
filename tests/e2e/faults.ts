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

/** Steps of the start and the end of a VM, of the host agent's own start, and of the network. */
export const NOT_OF_A_SEAL =
  /^(collect|network|watch|create|resume|destroy|delete|import):|^\*:(take-image|make-cgroup|limit-cgroup|prepare-place|start-ahead|end-ahead|take-slot|set-egress|start-keeper|enter-cgroup|start-vm|init|open-egress|write-machine|remove-head|restore-head)$/;

/** Steps of making a spare and of a create that takes one. */
export const OF_A_SPARE = /^(spare:|create:(take-spare|go-on)$)/;
/** Of a place that was made ahead, and of a start that takes one. */
export const OF_A_PLACE = /^\*:(prepare-place|start-ahead|end-ahead|limit-cgroup)$/;
/** Of keeping a boot, before it is sealed like anything else. */
export const OF_A_BOOT = /^boot:/;

/** `kill` is the host agent's end, the others are those of one process beside it. */
export type How = 'fail' | 'kill' | `kill=${'plane' | 'keeper' | 'vmm' | 'pager' | 'blockstore'}`;

/** The next time each of the steps is reached it fails, or a process dies there. */
export async function setFault(
  thaw: TestThaw,
  labels: string | readonly string[],
  how: How = 'fail',
): Promise<void> {
  const entries = [labels].flat().map((label) => (how === 'fail' ? label : `${label}:${how}`));
  await writeFile(path.join(thaw.run, 'faults'), entries.join('\n'));
}

/** Whether the faults that were set have happened. */
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

/** Those of `steps` that none of the labels is of. */
export function missedSteps(steps: Iterable<string>, hit: ReadonlySet<string>): string[] {
  return [...steps].filter((step) => {
    const [verb, name] = step.split(':');
    return verb === '*' ? ![...hit].some((label) => label.endsWith(`:${name}`)) : !hit.has(step);
  });
}
