/** A pause stores what changed and is not zero, little more; generations pile up and the fifth resumes as the first. */
import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const PAGE = 4096;
const COUNT = 2048;
/** Of what has to be stored. */
const SLACK = 1.1;
const IN = '/tmp/writer.in';
const OUT = '/tmp/writer.out';

interface Sealed {
  generation: number;
  memory: number;
  disk: number;
}

for (const tracker of ['auto', 'compare'] as const) {
  describe(`what a pause stores with the tracker ${tracker}`, () => {
    let thaw: TestThaw;
    let id: string;
    let generation = -1;
    let idle: Sealed;
    before(async () => {
      thaw = await startThaw({ env: { THAW_DIRTY: tracker } });
      id = (await thaw.sdk.sandboxes.create({ template: 'base' })).id;
      const program = await readFile(path.join(import.meta.dirname, 'guest/writer.py'));
      await thaw.sdk.sandboxes.writeFile(id, '/root/writer.py', program);
      const run = `python3 /root/writer.py ${COUNT} /root/writer.blocks ${IN} ${OUT}`;
      await thaw.sh(id, `setsid ${run} < /dev/null > /root/said 2>&1 &`);
      await eventually(() => thaw.sh(id, `cat /root/said >&2; test -p ${OUT}`), 120_000);
    });
    after(() => thaw?.stop());

    const tell = async (command: string) =>
      (await thaw.sh(id, `echo ${command} > ${IN}; cat ${OUT}; cat /root/said >&2`, 120)).trim();

    /** Runs a command, pauses, and tells what that stored; the sandbox runs again. */
    async function seal(command: string): Promise<Sealed> {
      assert.equal(await tell(command), 'done');
      const { build } = await thaw.sdk.sandboxes.pause(id);
      assert.ok(build);
      const bytes = async (file: string) =>
        (await stat(path.join(thaw.data, 'builds', build.id, file))).blocks * 512;
      const sealed = {
        generation: build.generation,
        memory: await bytes('memfile'),
        disk: await bytes('rootfs'),
      };
      await thaw.sdk.sandboxes.resume(id);
      assert.ok(build.stored_bytes >= sealed.memory + sealed.disk);
      if (generation >= 0) assert.equal(build.generation, generation + 1);
      generation = build.generation;
      return sealed;
    }

    it('is little when nothing happened', async () => {
      await seal('idle');
      idle = await seal('idle');
      assert.ok(idle.memory < 16 * 2 ** 20, `an idle pause stored ${idle.memory} bytes of memory`);
      assert.ok(idle.disk < 2 ** 20, `an idle pause stored ${idle.disk} bytes of disk`);
    });

    it('is the random pages and not the zero ones', async () => {
      const { memory } = await seal('memory');
      const wanted = SLACK * (COUNT * PAGE + idle.memory);
      assert.ok(memory >= COUNT * PAGE && memory <= wanted, `${memory} of ${wanted}, idle ${idle.memory}`);
    });

    it('is the random blocks and not the zero ones', async () => {
      const { disk, memory } = await seal('disk');
      const wanted = SLACK * (COUNT * PAGE + idle.disk);
      assert.ok(disk >= COUNT * PAGE && disk <= wanted, `${disk} of ${wanted}, idle ${idle.disk}`);
      assert.ok(memory < COUNT * PAGE, `writing past the cache stored ${memory} bytes of memory`);
    });

    it('is complete in the fifth generation and after it', async () => {
      assert.ok(generation >= 3);
      await seal('memory');
      await tell('fill');
      const sum = await tell('sum');
      await seal('idle');
      assert.equal(await tell('sum'), sum, `generation ${generation}`);
      assert.ok(generation >= 5);
    });
  });
}
