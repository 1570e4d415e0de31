/**
 * `thaw bench`: what sandboxes take on this installation, by the calls that its users make. Every time is from the request to
 * the first answer of a command, unless it says otherwise. What it makes it removes again, also after Ctrl-C.
 */
import { randomBytes } from 'node:crypto';
import { type Sandbox, ThawError } from '@thaw/api';
import type { Thaw } from '@thaw/sdk';
import { type Context, Interrupted } from '../context.ts';
import { printJson, printLine, printTable } from '../print.ts';

export interface BenchOptions {
  rounds?: number;
  template?: string;
}

export interface BenchFigure {
  name: string;
  unit: 'ms' | 'MiB';
  min: number;
  median: number;
  max: number;
}

const COMMANDS = 10;
const MIB = 2 ** 20;

export async function bench(
  context: Context,
  { rounds = 5, template = 'minimal' }: BenchOptions,
): Promise<void> {
  if (rounds < 1) throw new ThawError('invalid_request', 'there is at least one round');
  const thaw = context.thaw();
  const measured = new Map<string, { unit: 'ms' | 'MiB'; values: number[] }>();
  const note = (name: string, value: number, unit: 'ms' | 'MiB' = 'ms') => {
    const known = measured.get(name) ?? { unit, values: [] };
    known.values.push(value);
    measured.set(name, known);
  };
  let last: Sandbox | undefined;
  for (let round = 1; round <= rounds; round++) {
    if (context.signal.aborted) throw new Interrupted();
    last = await context.progress.step(`round ${round} of ${rounds}`, () => oneRound(thaw, template, note));
  }
  const figures = [...measured].map(([name, { unit, values }]) => figure(name, unit, values));
  const { vmm, isolation } = last!;
  if (context.json) return printJson({ template, rounds, vmm, isolation, figures });
  await printLine(`${template} under ${vmm} (${isolation}), ${rounds} rounds\n`);
  const rows = figures.map(({ name, unit, median, min, max }) => [
    name,
    `${median} ${unit}`,
    `${min}`,
    `${max}`,
  ]);
  await printTable(['WHAT', 'MEDIAN', 'MIN', 'MAX'], rows);
}

type Note = (name: string, value: number, unit?: 'ms' | 'MiB') => void;

async function oneRound(thaw: Thaw, template: string, note: Note): Promise<Sandbox> {
  await using undo = new AsyncDisposableStack();
  const made = await timed(() => started(thaw, template));
  const { id } = made.result;
  undo.defer(() => thaw.sandboxes.delete(id));
  note('create', made.ms);
  for (let command = 0; command < COMMANDS; command++)
    note('a command', (await timed(() => answer(thaw, id))).ms);
  // The first pause stores what the start has written; the second what a resume and a command change.
  for (const which of ['first pause, the call', 'later pause, the call']) {
    const pause = await timed(() => thaw.sandboxes.pause(id));
    note(which, pause.ms);
    const { build, timings_ms } = pause.result;
    if (timings_ms?.frozen !== undefined) note(`${which.split(',')[0]}, VM stands still`, timings_ms.frozen);
    if (build) note(`${which.split(',')[0]}, stored`, build.stored_bytes / MIB, 'MiB');
    const resume = await timed(async () => {
      await thaw.sandboxes.resume(id);
      await answer(thaw, id);
    });
    note('resume', resume.ms);
  }
  const name = `bench-${randomBytes(6).toString('hex')}`;
  const frozen = await timed(() => thaw.snapshots.create(id, { name }));
  undo.defer(() => thaw.snapshots.delete(name));
  note('snapshot of a running sandbox, the call', frozen.ms);
  const spawned = await timed(() => started(thaw, name));
  undo.defer(() => thaw.sandboxes.delete(spawned.result.id));
  note('create from a snapshot', spawned.ms);
  return made.result;
}

async function started(thaw: Thaw, template: string): Promise<Sandbox> {
  const sandbox = await thaw.sandboxes.create({ template });
  try {
    await answer(thaw, sandbox.id);
    return sandbox;
  } catch (error) {
    await thaw.sandboxes.delete(sandbox.id);
    throw error;
  }
}

async function answer(thaw: Thaw, id: string): Promise<void> {
  const { stdout } = await thaw.sandboxes.exec(id, { cmd: 'echo', args: ['hello'] });
  if (stdout !== 'hello\n') throw new ThawError('agent_error', 'the guest did not answer as asked');
}

async function timed<T>(action: () => Promise<T>): Promise<{ ms: number; result: T }> {
  const begun = performance.now();
  const result = await action();
  return { ms: performance.now() - begun, result };
}

function figure(name: string, unit: 'ms' | 'MiB', values: readonly number[]): BenchFigure {
  const sorted = values.toSorted((a, b) => a - b);
  const rounded = (value: number) => Number(value.toPrecision(3));
  const [min, median, max] = [sorted[0]!, sorted[sorted.length >> 1]!, sorted.at(-1)!];
  return { name, unit, min: rounded(min), median: rounded(median), max: rounded(max) };
}
