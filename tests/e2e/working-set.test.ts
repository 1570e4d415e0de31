/** What a start needs first: recorded by one, brought in before the next one asks, whatever that one does then. */
import assert from 'node:assert/strict';
import { readdir, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Figures } from './figures.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const PAGE = 4096;
const PREPARE = `
  head -c 24000000 /dev/urandom > /dev/shm/cold
  md5sum /dev/shm/cold > /dev/shm/cold.sum`;
const VERIFY = 'md5sum -c --quiet /dev/shm/cold.sum';

/** A program that was not run before brings pages of its own, and each its neighbours: at times half as many as all. */
const OTHER_COMMAND = 0.75;

describe('the working set', () => {
  let thaw: TestThaw;
  before(async () => {
    // Memory that is mapped does not come in.
    thaw = await startThaw({ env: { THAW_MEMORY: 'uffd', THAW_KEPT_BOOTS: '0' } });
  });
  after(() => thaw?.stop());

  /** Pages that came in during `work`, and bytes that came in ahead for nothing until now. */
  async function pagesOf(work: () => Promise<void>) {
    const look = async () => {
      const { body } = await thaw.api<string>('GET', '/metrics');
      const figures = new Figures(body);
      return {
        byFault: figures.sum('thaw_pages_total', { cause: 'fault' }),
        ahead: figures.sum('thaw_pages_total', { cause: 'ahead' }),
        untouched: figures.sum('thaw_page_bytes_untouched'),
      };
    };
    const start = await look();
    await work();
    const end = await look();
    return { ...end, byFault: end.byFault - start.byFault, ahead: end.ahead - start.ahead };
  }

  const records = async () => {
    const builds = await readdir(path.join(thaw.data, 'builds'));
    const files = builds.map((build) => path.join(thaw.data, 'builds', build, 'workset'));
    const sizes = await Promise.all(files.map((file) => stat(file).catch(() => undefined)));
    return files.filter((_, index) => sizes[index] !== undefined);
  };

  it('of a template is that of its starts', async () => {
    const source = await thaw.sdk.sandboxes.create();
    await thaw.sh(source, PREPARE);
    await thaw.sdk.snapshots.create(source.id, { name: 'set' });
    await thaw.sdk.sandboxes.delete(source.id);
    assert.deepEqual(await records(), []);
    const spawn = async (script: string) => {
      const { id } = await thaw.sdk.sandboxes.create({ template: 'set' });
      await thaw.sh(id, script);
      return id;
    };
    let [first, second] = ['', ''];
    const before = await pagesOf(async () => {
      first = await spawn('echo hello');
    });
    const [record] = await eventually(async () => {
      const found = await records();
      assert.equal(found.length, 1);
      return found;
    });
    const after = await pagesOf(async () => {
      second = await spawn('ls -l /etc; cat /proc/meminfo');
    });
    assert.ok(
      after.byFault < before.byFault * OTHER_COMMAND,
      `${before.byFault} pages, then ${after.byFault}`,
    );
    // What came in with others was only guessed: some of it nobody touched.
    const { untouched } = after;
    assert.ok(untouched > 0 && untouched < (before.ahead + after.ahead) * PAGE, `${untouched} bytes`);
    for (const id of [first, second]) await thaw.sh(id, VERIFY);

    // A damaged record is none.
    await writeFile(record!, 'no record of anything');
    await thaw.sh(await spawn('true'), VERIFY);
    await thaw.destroyAll();
    await thaw.sdk.snapshots.delete('set');
  });

  it('of a sandbox is that of its last start, over pauses and other commands', async () => {
    const { id } = await thaw.sdk.sandboxes.create();
    await thaw.sh(id, PREPARE);
    const bytes: number[] = [];
    for (const command of ['echo hello', 'ls -l /etc', 'cat /proc/meminfo', 'md5sum /dev/shm/cold']) {
      await thaw.sdk.sandboxes.pause(id);
      const { byFault } = await pagesOf(async () => {
        await thaw.sdk.sandboxes.resume(id);
        await thaw.sh(id, command);
      });
      bytes.push(byFault);
      await thaw.sh(id, VERIFY);
    }
    const [first, ...later] = bytes as [number, number, number, number];
    // At times the guest's kernel gives back memory meanwhile, and looks at the map of all of it.
    const [less, more] = later.slice(0, 2).toSorted((a, b) => a - b) as [number, number];
    assert.ok(less < first / 2 && more < first * OTHER_COMMAND, `pages by faults: ${bytes}`);
    await thaw.sdk.sandboxes.delete(id);
  });
});
