/** Clones whose memory is their template's, mapped: what they have, what they keep, and what never reaches another. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, describe, it } from 'node:test';
import type { Sandbox } from '@thaw/api';
import { Checksummer } from './checksummer.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const seed = process.env.THAW_SEED ?? randomUUID();
const MIB = 2 ** 20;

for (const tracker of ['auto', 'compare']) {
  describe(`clones with mapped memory and THAW_DIRTY=${tracker} (seed ${seed})`, () => {
    let thaw: TestThaw;
    before(async () => {
      thaw = await startThaw({
        env: { THAW_DIRTY: tracker, THAW_MEMORY: 'mapped', THAW_KEPT_BOOTS: '0' },
      });
    });
    afterEach(() => thaw.destroyAll());
    after(() => thaw?.stop());

    const clone = async (): Promise<Sandbox> => {
      const sandbox = await thaw.sdk.sandboxes.create({ template: 'mother' });
      assert.equal(sandbox.backend, 'mapped');
      return sandbox;
    };
    const backendOf = async (id: string) => (await thaw.sdk.sandboxes.get(id)).backend;
    const pager = async (id: string) => (await thaw.sdk.sandboxes.stats(id)).pids.pager!;
    /** Until another one serves; the sandbox runs on. */
    const untilReplaced = (id: string, killed: number) =>
      eventually(async () => {
        const now = await pager(id);
        assert.ok(now > 0 && now !== killed, `pager ${now} after ${killed}`);
        assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'running');
      });

    /** Halted, and a template of it with the name `mother`. */
    async function mother(): Promise<Checksummer> {
      const { id, backend } = await thaw.sdk.sandboxes.create({ template: 'base' });
      assert.equal(backend, 'uffd', 'a booted one has memory of its own');
      const guest = await Checksummer.start(thaw, id, { seed, pages: 2048, blocks: 256 });
      await guest.go();
      await thaw.sh(id, 'sleep 1');
      await guest.check('before the snapshot');
      await thaw.sdk.snapshots.create(id, { name: 'mother', overwrite: true });
      await thaw.sdk.sandboxes.delete(id);
      return guest;
    }

    it('hold exactly what they should, paused, resumed, forked and made templates of', async () => {
      const origin = await mother();
      const sandboxes = [await clone(), await clone(), await clone()] as const;
      const [first, second, third] = sandboxes;
      const guests = sandboxes.map(({ id }) => origin.inFork(id)) as [Checksummer, Checksummer, Checksummer];
      for (const guest of guests.slice(0, 2)) await guest.go();
      await thaw.sh(first, 'sleep 1');

      await guests[1].check('before its fork');
      const [fork] = await thaw.sdk.sandboxes.fork(second.id);
      assert.ok(fork !== undefined && 'sandbox' in fork);
      assert.equal(fork.sandbox.backend, 'mapped');
      const child = guests[1].inFork(fork.sandbox.id);
      await child.check('a fork');
      await child.go();
      await guests[1].go();

      for (const round of [1, 2]) {
        const { build } = await thaw.sdk.sandboxes.pause(first.id);
        assert.ok(build!.stored_bytes < 64 * MIB, 'only what is its own is stored');
        assert.equal((await thaw.sdk.sandboxes.resume(first.id)).backend, 'uffd');
        await guests[0].check(`resumed ${round}`);
        await guests[0].go();
      }
      await thaw.sdk.snapshots.create(second.id, { name: 'daughter' });
      await guests[1].check('after two seals of a VM that goes on');
      await thaw.sdk.sandboxes.pause(second.id);
      await thaw.sdk.sandboxes.resume(second.id);
      await guests[1].check('resumed');
      await child.check('a fork that went on');
      await guests[2].check('who wrote nothing');
      await origin.inFork((await clone()).id).check('a later clone');
      await thaw.sdk.sandboxes.create({ template: 'daughter' });
      await thaw.sdk.sandboxes.pause(third.id);
      for (const name of ['mother', 'daughter']) await thaw.sdk.snapshots.delete(name);
      await thaw.sdk.sandboxes.resume(third.id);
      await guests[2].check('without its template');
    });

    it('go on without host agent and pager, and their seals miss nothing', async () => {
      const origin = await mother();
      const { id } = await clone();
      const guest = origin.inFork(id);
      await guest.go();
      const killed = await pager(id);
      process.kill(killed, 'SIGKILL');
      await guest.check('nobody waits for a pager');
      await guest.go();
      await untilReplaced(id, killed);
      const { agent } = await thaw.agentPids();
      process.kill(agent, 'SIGKILL');
      await eventually(async () => {
        assert.notEqual((await thaw.agentPids()).agent, agent);
        assert.ok((await thaw.sdk.sandboxes.stats(id)).pids.vmm);
      });
      assert.equal(await backendOf(id), 'mapped');
      await guest.check('taken over');
      await guest.go();
      await thaw.sdk.snapshots.create(id, { name: 'daughter' });
      await guest.check('sealed');
      await guest.go();
      const again = await pager(id);
      process.kill(again, 'SIGKILL');
      // Whoever seals at that very moment asks the one that died.
      await untilReplaced(id, again);
      await thaw.sdk.sandboxes.pause(id);
      await thaw.sdk.sandboxes.resume(id);
      await guest.check('resumed');

      const lost = await clone();
      await origin.inFork(lost.id).go();
      process.kill((await thaw.sdk.sandboxes.stats(lost.id)).pids.vmm!, 'SIGKILL');
      await eventually(async () => assert.equal((await thaw.sdk.sandboxes.get(lost.id)).status, 'error'));
      await thaw.sdk.sandboxes.resume(lost.id);
      await origin.inFork(lost.id).check('back to its template');
      for (const name of ['mother', 'daughter']) await thaw.sdk.snapshots.delete(name);
    });
  });
}

it('is not mapped where that is not wanted', async () => {
  const thaw = await startThaw({ env: { THAW_MEMORY: 'uffd' } });
  try {
    const { id } = await thaw.sdk.sandboxes.create();
    await thaw.sdk.snapshots.create(id, { name: 'frozen' });
    assert.equal((await thaw.sdk.sandboxes.create({ template: 'frozen' })).backend, 'uffd');
  } finally {
    await thaw.stop();
  }
});
