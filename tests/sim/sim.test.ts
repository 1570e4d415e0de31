/** A sample of the model test: `make sim` runs thousands. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { withDatabase } from './cluster.ts';
import { type Outcome, run } from './run.ts';

const SEEDS = Array.from({ length: 12 }, (_, index) => index + 1);

it('the verbs of both daemons keep their promises in any order, with faults and kills', async () => {
  const failed: Outcome[] = [];
  await withDatabase(async (pool, key) => {
    for (const seed of SEEDS) {
      const outcome = await run(seed, pool, key);
      if (outcome.violations.length > 0) failed.push(outcome);
    }
    const [again] = SEEDS;
    const { digest } = await run(again!, pool, key);
    assert.equal((await run(again!, pool, key)).digest, digest, 'a seed gives the same run each time');
  });
  const told = failed.map(
    ({ seed, violations }) => `node tests/sim/once.ts ${seed}\n${violations.join('\n')}`,
  );
  assert.deepEqual(told, []);
});
