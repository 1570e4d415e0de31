import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type BackendWish, chooseBackend } from './backend.ts';
import { FakeKit } from './fake/kit.ts';
import type { Backend } from './vmm.ts';

const kit = new FakeKit();
const memory = (runs: number, builds: number) =>
  ({ header: { entries: { length: runs } }, sources: { size: builds } }) as Parameters<
    typeof chooseBackend
  >[1]['memory'];

function chosen(
  wish: BackendWish,
  { clone = true, runs = 400, builds = 2, backends = kit.backends as readonly Backend[] } = {},
) {
  const asked = { clone, memory: memory(runs, builds), kit: { info: kit.info, backends } };
  return chooseBackend(wish, asked);
}

it('clones share what they read, unless that is not wanted or can not be', () => {
  assert.equal(chosen('auto').backend, 'mapped');
  assert.equal(chosen('mapped').backend, 'mapped');
  assert.equal(chosen('uffd').backend, 'uffd');
  for (const wish of ['auto', 'mapped'] as const) {
    assert.equal(chosen(wish, { clone: false }).backend, 'uffd');
    assert.match(chosen(wish, { runs: 40_000 }).why, /40000 pieces of 2 builds/);
    assert.match(chosen(wish, { builds: 1000 }).why, /400 pieces of 1000 builds/);
    const unable = chosen(wish, { backends: ['uffd'] });
    assert.deepEqual(unable, { backend: 'uffd', why: "fake can't map a build's memory" });
  }
});
