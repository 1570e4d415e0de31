/**
 * Runs seeds one after another: `node tests/sim/once.ts FIRST [COUNT] [--trace | --json]`. With a trace it tells each gate
 * in its order; as JSON, a line for each run.
 */
import { parseArgs } from 'node:util';
import { withDatabase } from './cluster.ts';
import { type Outcome, run } from './run.ts';

const { values, positionals } = parseArgs({
  options: { trace: { type: 'boolean', default: false }, json: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const [first = 1, count = 1] = positionals.map(Number);

function tell({ seed, profile, operations, turns, digest, violations, trace }: Outcome, ms: number): void {
  console.log(`${seed} ${profile}: ${operations} operations, ${turns} turns, ${digest}, ${ms} ms`);
  for (const violation of violations) console.log(`  ${violation}`);
  if (values.trace) for (const line of trace) console.log(`    ${line}`);
}

await withDatabase(async (pool, key) => {
  for (let seed = first; seed < first + count; seed++) {
    const started = process.hrtime.bigint();
    const outcome = await run(seed, pool, key);
    const ms = Math.round(Number(process.hrtime.bigint() - started) / 1e6);
    if (values.json) console.log(JSON.stringify({ ...outcome, trace: undefined, steps: stepsOf(outcome) }));
    else tell(outcome, ms);
  }
});
process.exit();

/** The labelled steps that were run, and those of them that failed. */
function stepsOf({ trace }: Outcome): { run: string[]; failed: string[] } {
  const run = new Set<string>();
  const failed = new Set<string>();
  for (const line of trace) {
    const [, label, fails] = /^host\d+ step (\S+)( FAILS)?$/.exec(line) ?? [];
    if (label === undefined) continue;
    run.add(label);
    if (fails !== undefined) failed.add(label);
  }
  return { run: [...run], failed: [...failed] };
}
