/** Many pauses and resumes of a guest that changes its memory and disk all the time: nothing is lost, nothing grows. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Checksummer } from './checksummer.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { fullTraces } from './places.ts';
import { allocatedBelow, descriptors, type Traces } from './traces.ts';

await ownHost(import.meta.filename);

/** Until then caches fill and connections settle. */
const WARM_UP = 4;
const SLOTS = 2;
const seed = process.env.THAW_TEST_SEED ?? randomBytes(4).toString('hex');

for (const { tracker, rounds } of [
  { tracker: 'auto', rounds: 12 },
  { tracker: 'compare', rounds: 6 },
]) {
  describe(`pauses and resumes with the tracker ${tracker}`, () => {
    let thaw: TestThaw;
    before(async () => {
      // Bytes are counted exactly: nothing is kept beside what is asked for.
      const env = { THAW_SLOT_POOL: String(SLOTS), THAW_DIRTY: tracker, THAW_KEPT_BOOTS: '0' };
      thaw = await startThaw({ env });
    });
    after(() => thaw?.stop());

    /** Everything Thaw keeps, its database left out, whose files come and go. */
    const stored = () => allocatedBelow(thaw.data, path.join(thaw.data, 'postgres'));

    it(`lose nothing and leave nothing in ${rounds} rounds (seed ${seed})`, async () => {
      const idle = await fullTraces(thaw, SLOTS);
      const template = await stored();
      const { agent, plane } = await thaw.agentPids();
      const open: { agent: number; plane: number }[] = [];

      const { id } = await thaw.sdk.sandboxes.create({ template: 'base' });
      const guest = await Checksummer.start(thaw, id, { seed, pages: 4096, blocks: 2048 });
      let steps = await guest.check('before the first pause');
      let before = 0;
      for (let round = 0; round < rounds; round++) {
        await guest.go();
        await sleep(200);
        const { build } = await thaw.sdk.sandboxes.pause(id);
        assert.ok(build);
        const same = (now: Traces) => JSON.stringify(now) === JSON.stringify(idle);
        assert.deepEqual(await thaw.settledTraces(same), idle, `round ${round}`);
        const now = await stored();
        // The first build, of a VM that was booted, gets its record of what a start needs from its first resume.
        if (round > 1) assert.equal(now - before, build.stored_bytes, `round ${round}`);
        before = now;
        open.push({ agent: await descriptors(agent), plane: await descriptors(plane) });
        await thaw.sdk.sandboxes.resume(id);
        const after = await guest.check(`round ${round}`);
        assert.ok(after > steps, 'it does not run');
        steps = after;
      }
      await thaw.sdk.sandboxes.pause(id);
      // Calls under way and idle connections to the database come and go; what leaks stays.
      for (const [daemon, pid] of Object.entries({ agent, plane })) {
        const early = Math.max(...open.slice(0, WARM_UP).map((count) => count[daemon as keyof typeof count]));
        await eventually(async () => {
          const now = await descriptors(pid);
          assert.ok(now <= early, `descriptors of the ${daemon}: ${JSON.stringify(open)}, now ${now}`);
        });
      }
      await thaw.sdk.sandboxes.delete(id);
      assert.equal(await stored(), template);
    });
  });
}
