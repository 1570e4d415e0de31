/**
 * One sandbox is paused, resumed and forked over and over, while a program in it writes, zeroes and frees memory and
 * changes its disk: each page and block of it, and of every tenth fork, is what the program made of it.
 *
 * `THAW_CYCLES`: how many. `THAW_RESULTS`: a file for the outcome.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertNothingStray, buildNames } from './builds.ts';
import { Checksummer } from './checksummer.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { saveResults, table } from './results.ts';

await ownHost(import.meta.filename);

const CYCLES = Number(process.env.THAW_CYCLES ?? 10);
const CHECKED = 10;
const REPORT = 100;
/** The guest gives free memory back two seconds after it was freed. */
const GIVE_BACK_MS = 2500;
const seed = process.env.THAW_TEST_SEED ?? randomBytes(4).toString('hex');

describe(`a sandbox that is paused, resumed and forked ${CYCLES} times (seed ${seed})`, () => {
  let thaw: TestThaw;
  const rows: number[][] = [];
  let forksChecked = 0;
  before(async () => {
    thaw = await startThaw({ env: { THAW_BUILD_GRACE_SEC: '1' } });
  });
  after(async () => {
    const columns = ['cycle', 'steps of the program', 'generation', 'MiB stored by the pause', 'builds'];
    const facts = {
      seed,
      cycles: `${rows.at(-1)?.[0] ?? 0} of ${CYCLES}`,
      'forks checked': `${forksChecked}`,
    };
    await saveResults('Pauses, resumes and forks of one sandbox', facts, table(columns, rows));
    await thaw?.stop();
  });

  it('loses nothing, and neither do its forks', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ template: 'base' });
    const guest = await Checksummer.start(thaw, id, { seed, pages: 3072, blocks: 1024 });
    let steps = await guest.check('before the first pause');
    for (let cycle = 1; cycle <= CYCLES; cycle++) {
      const isChecked = cycle % CHECKED === 0;
      await guest.free();
      await guest.go();
      await sleep(isChecked ? GIVE_BACK_MS : 200);
      const { build } = await thaw.sdk.sandboxes.pause(id);
      assert.ok(build);
      await thaw.sdk.sandboxes.resume(id);
      const [fork] = await thaw.sdk.sandboxes.fork(id);
      assert.ok(fork !== undefined && 'sandbox' in fork, JSON.stringify(fork));
      const { sandbox: child } = fork;
      if (isChecked) {
        await guest.inFork(child.id).check(`the fork of cycle ${cycle}`);
        forksChecked++;
      }
      await thaw.sdk.sandboxes.delete(child.id);
      const now = await guest.check(`cycle ${cycle}`);
      assert.ok(now > steps, 'it does not run');
      steps = now;
      if (cycle % REPORT !== 0 && cycle !== CYCLES) continue;
      const mib = Math.round(build.stored_bytes / 2 ** 20);
      rows.push([cycle, steps, build.generation, mib, (await buildNames(thaw)).length]);
    }
    await thaw.sdk.sandboxes.delete(id);
    await eventually(() => assertNothingStray(thaw));
  });
});
