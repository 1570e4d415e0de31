/**
 * Each step of a seal is made to fail once: the VM goes on, and nothing is lost, whatever the seal had done before.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { assertNothingStray } from './builds.ts';
import { Checksummer } from './checksummer.ts';
import {
  allSteps,
  FAULTS,
  faultHappened,
  missedSteps,
  NOT_OF_A_SEAL,
  OF_A_BOOT,
  OF_A_SPARE,
  setFault,
} from './faults.ts';
import { startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { sample, TAKE_ALL } from './sample.ts';

await ownHost(import.meta.filename);

const SLOTS = 2;
const seed = process.env.THAW_TEST_SEED ?? randomBytes(4).toString('hex');
/** Steps after the head is committed: they can't undo a seal, and a pause has succeeded then. */
const AFTER_SEAL = ['pause:write-record', 'pause:end', 'pause:unname-builds', 'pause:remove-builds'];
/** How many of the steps `make test` takes. */
const SAMPLE = 12;
/** What these leave is removed by the sweep of a later start. */
const LEAVES_BUILDS = /:(unname|remove)-builds$/;

describe('a step that fails once', () => {
  let thaw: TestThaw;
  const known = new Set<string>();
  before(async () => {
    thaw = await startThaw({ env: { ...FAULTS, THAW_SLOT_POOL: String(SLOTS) } });
  });
  after(() => thaw?.stop());

  const { pause, resume, snapshot } = {
    pause: (id: string) => thaw.sdk.sandboxes.pause(id),
    resume: (id: string) => thaw.sdk.sandboxes.resume(id),
    snapshot: (id: string) => thaw.sdk.snapshots.create(id, { name: 'frozen', overwrite: true }),
  };

  /** The steps that the verb has taken, as its answer tells them; those that may leave builds come last. */
  function taken(answer: { timings_ms?: Record<string, number> | undefined }): string[] {
    const labels = Object.keys(answer.timings_ms ?? {}).filter((label) => label.includes(':'));
    assert.ok(labels.length > 3, JSON.stringify(answer));
    return labels.toSorted((a, b) => Number(LEAVES_BUILDS.test(a)) - Number(LEAVES_BUILDS.test(b)));
  }

  async function failAt<T>(label: string, verb: () => Promise<T>): Promise<PromiseSettledResult<T>> {
    await setFault(thaw, label);
    const [result] = await Promise.allSettled([verb()]);
    assert.ok(await faultHappened(thaw), `${label} was not reached`);
    return result!;
  }

  it(`of a seal loses nothing (seed ${seed})`, async (context) => {
    const { id } = await thaw.sdk.sandboxes.create({ template: 'base' });
    const guest = await Checksummer.start(thaw, id, { seed, pages: 1024, blocks: 512 });
    await guest.go();
    const pauseLabels = taken(await pause(id));
    await resume(id);
    // The first has no template to replace.
    await snapshot(id);
    const snapshotLabels = taken(await snapshot(id));
    assert.ok(pauseLabels.includes('pause:commit-head') && snapshotLabels.includes('snapshot:rebase-disk'));
    let steps = await guest.check('before the first fault');

    async function goesOn(message: string): Promise<void> {
      const found = await guest.check(message);
      assert.ok(found > steps, `${message}: it does not run`);
      steps = found;
    }

    for (const label of [...snapshotLabels, ...pauseLabels]) known.add(label);
    for (const label of TAKE_ALL ? known : sample([...known], SAMPLE, seed)) {
      const verb: (id: string) => Promise<unknown> = label.startsWith('pause:') ? pause : snapshot;
      await context.test(label, async () => {
        await guest.go();
        const result = await failAt(label, () => verb(id));
        if (AFTER_SEAL.includes(label)) {
          assert.equal(result.status, 'fulfilled');
          assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'paused');
        } else {
          assert.equal(result.status, 'rejected');
          assert.equal(result.reason.status, 500);
          assert.doesNotMatch(result.reason.message, /\/|fault|fail at/);
          assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'running');
          await goesOn('after the fault');
          await guest.go();
          await pause(id);
        }
        if (!LEAVES_BUILDS.test(label)) await assertNothingStray(thaw, 'paused');
        await resume(id);
        await goesOn('after the next pause');
        if (!LEAVES_BUILDS.test(label)) await assertNothingStray(thaw, 'running');
      });
    }
    await thaw.sdk.sandboxes.delete(id);
  });

  it('leaves out no step that the sources have', async () => {
    const ofSeals = [...(await allSteps())].filter(
      (step) => !NOT_OF_A_SEAL.test(step) && !OF_A_SPARE.test(step) && !OF_A_BOOT.test(step),
    );
    assert.deepEqual(missedSteps(ofSeals, known), []);
  });
});
