/** The process is killed at each step of a seal; a new one finds a whole build under the head and goes on from it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { test } from 'node:test';
import { Steps } from '../os/step.ts';
import { acquireHead } from './acquire.ts';
import { COLLECT_AGE_MS, collectBuilds } from './collect.ts';
import { assemble, pauseInto, SANDBOX, testStore } from './fixture.ts';
import { openBuildStore } from './store.ts';
import { verifyBuild } from './verify.ts';

const LABELS = [
  'pause:begin-build',
  'pause:link-disk',
  'pause:write-headers',
  'pause:checksum',
  'pause:fsync-files',
  'pause:write-manifest',
  'pause:fsync-build',
  'pause:rename-build',
  'pause:fsync-builds',
  'pause:write-head',
  'pause:commit-head',
  'pause:fsync-head',
];

/** Pauses once more on top of the head, and dies at the label. */
const CHILD = `
  import { Steps } from ${JSON.stringify(import.meta.resolve('../os/step.ts'))};
  import { acquireHead } from ${JSON.stringify(import.meta.resolve('./acquire.ts'))};
  import { assemble, pauseInto, SANDBOX } from ${JSON.stringify(import.meta.resolve('./fixture.ts'))};
  import { openBuildStore } from ${JSON.stringify(import.meta.resolve('./store.ts'))};
  const [data, label] = process.argv.slice(1);
  const store = await openBuildStore(data);
  const { build } = await acquireHead(store, SANDBOX);
  const content = { memory: await assemble(build.memory), disk: await assemble(build.disk) };
  const steps = new Steps((at) => {
    if (at === label) process.kill(process.pid, 'SIGKILL');
  });
  await pauseInto(store, { memory: 'D0.', disk: '.0D' }, { build, content }, { steps });
`;

async function pauseAndDie(data: string, label: string): Promise<void> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', CHILD, data, label], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const [code, signal] = await once(child, 'exit');
  assert.deepEqual({ code, signal }, { code: null, signal: 'SIGKILL' }, label);
}

for (const label of LABELS) {
  test(`killed at ${label}`, async (t) => {
    const before = await testStore(t);
    const first = await pauseInto(before, { memory: 'DDD', disk: 'DDD' });
    await pauseAndDie(before.paths.data, label);

    const store = await openBuildStore(before.paths.data);
    const { build, hold } = await acquireHead(store, SANDBOX);
    await verifyBuild(store, build.id);
    assert.equal(build.id === first.build.id, label !== 'pause:fsync-head');
    const content = { memory: await assemble(build.memory!), disk: await assemble(build.disk) };
    if (build.id === first.build.id) assert.deepEqual(content, first.content);

    await collectBuilds(store, new Steps(), { nowMs: Date.now() + 2 * COLLECT_AGE_MS });
    const expected = build.id === first.build.id ? [build.id] : [build.id, first.build.id];
    assert.deepEqual((await readdir(store.paths.builds)).sort(), expected.sort());
    const next = await pauseInto(store, { memory: '.D0', disk: 'D..' }, { build, content });
    assert.ok(
      (await assemble((await verifyBuild(store, next.build.id)).memory!)).equals(next.content.memory),
    );
    hold[Symbol.dispose]();
  });
}
