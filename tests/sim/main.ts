/**
 * `make sim`: thousands of runs, each in an order of its own. Prints what did not hold, with the command that repeats it,
 * and with `--write` keeps the result in docs/results/sim.md.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import type { Outcome } from './run.ts';

const root = path.join(import.meta.dirname, '..', '..');
/** A process runs so many, then a new one goes on: what killed daemons keep in memory goes with it. */
const CHUNK = 25;

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '4000' },
    seed: { type: 'string', default: '1' },
    jobs: { type: 'string', default: String(os.availableParallelism()) },
    write: { type: 'boolean', default: false },
  },
});
const runs = Number(values.runs);
const first = Number(values.seed);

type Result = Outcome & { steps: { run: string[]; failed: string[] } };

const results: Result[] = [];
const broken: string[] = [];
const started = performance.now();
let next = first;

async function work(): Promise<void> {
  while (next < first + runs) {
    const from = next;
    const count = Math.min(CHUNK, first + runs - from);
    next += count;
    const argv = [path.join(import.meta.dirname, 'once.ts'), String(from), String(count), '--json'];
    const child = spawn(process.execPath, argv, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
    const exited = once(child, 'exit');
    let told = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      const result = JSON.parse(line) as Result;
      told += 1;
      results.push(result);
      for (const violation of result.violations) console.log(`seed ${result.seed}: ${violation}`);
    }
    const [code] = await exited;
    if (code !== 0 || told < count)
      broken.push(`seeds ${from + told} to ${from + count - 1} ended with ${code}`);
    console.log(`${results.length} of ${runs} runs, ${failed().length} failed`);
  }
}

function failed(): Result[] {
  return results.filter(({ violations }) => violations.length > 0);
}

function report(): string {
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
    cwd: root,
    encoding: 'utf8',
  }).trim();
  const sum = (of: readonly Result[], pick: (result: Result) => number) =>
    of.reduce((total, result) => total + pick(result), 0);
  const rows = ['calm', 'faults', 'kills', 'chaos'].map((name) => {
    const of = results.filter(({ profile }) => profile === name);
    const bad = of.filter(({ violations }) => violations.length > 0);
    return `| ${name} | ${of.length} | ${sum(of, ({ operations }) => operations)} | ${sum(of, ({ turns }) => turns)} | ${bad.length} |`;
  });
  const steps = (pick: (result: Result) => string[]) => new Set(results.flatMap(pick)).size;
  const bad = failed().map(({ seed, violations }) => `- seed ${seed}: ${violations[0]?.split('\n')[0]}`);
  return [
    '# The model test',
    '',
    `Commit ${commit}, seeds ${first} to ${first + runs - 1}, ${Math.round((performance.now() - started) / 60_000)} minutes`,
    `on ${os.availableParallelism()} CPUs. \`make sim\` repeats it, \`node tests/sim/once.ts SEED --trace\` one run of it.`,
    '',
    '| Runs | | Operations | Decisions | Failed |',
    '|---|---|---|---|---|',
    ...rows,
    '',
    `Labelled steps of the host agent: ${steps(({ steps }) => steps.run)} were run, ${steps(({ steps }) => steps.failed)} of them failed at least once.`,
    'In `calm` runs every answer is checked against the model; `faults` fail steps, calls and the database; `kills` end',
    'either daemon at any moment; `chaos` does all of it and ends VMs too.',
    ...(bad.length > 0 ? ['', 'Failed:', '', ...bad] : []),
    '',
  ].join('\n');
}

await Promise.all(Array.from({ length: Number(values.jobs) }, work));
for (const line of broken) console.log(line);
for (const { seed } of failed()) console.log(`node tests/sim/once.ts ${seed} --trace`);
const text = report();
console.log(text);
if (values.write) {
  mkdirSync(path.join(root, 'docs', 'results'), { recursive: true });
  writeFileSync(path.join(root, 'docs', 'results', 'sim.md'), text);
}
process.exitCode = failed().length === 0 && broken.length === 0 ? 0 : 1;
