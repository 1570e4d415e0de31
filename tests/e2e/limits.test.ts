/** Control groups on real VMs: everything of a sandbox is in its group, and the group goes with it. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Cgroups } from '../../packages/host-agent/src/os/cgroup/cgroups.ts';
import { type CONTROLLERS, readLayout } from '../../packages/host-agent/src/os/cgroup/layout.ts';
import { limitsOf, settings } from '../../packages/host-agent/src/os/cgroup/limits.ts';
import { KERNEL, members, sandboxGroup } from '../../packages/host-agent/src/os/cgroup/paths.ts';
import { instanceOf } from '../../scripts/throwaway/leftovers.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { vmOf } from './places.ts';
import { allProcesses } from './traces.ts';

await ownHost(import.meta.filename);

describe('limits', () => {
  let thaw: TestThaw;
  /** The group of a VM in each tree, with what limits it there. */
  let groups: (
    vm: string,
  ) => { folder: string; version: 1 | 2; controllers: (typeof CONTROLLERS)[number][] }[];

  before(async () => {
    thaw = await startThaw({ env: { THAW_PLACES: '2' } });
    const instance = await instanceOf(thaw.data);
    const { trees } = await readLayout(KERNEL);
    // What this machine lets nobody limit is not expected of Thaw either.
    await using probe = await Cgroups.open({ instance: `t${process.pid}`, group: 'auto' });
    groups = (vm) =>
      trees
        .map((tree) => ({
          ...tree,
          controllers: tree.controllers.filter((name) => probe.controllers.includes(name)),
        }))
        .filter(({ controllers }) => controllers.length > 0)
        .map(({ parent, version, controllers }) => ({
          folder: sandboxGroup(path.join(parent, `thaw-${instance}`), vm),
          version,
          controllers,
        }));
  });
  after(() => thaw.stop());

  test('everything of a sandbox is in its group, also after the host agent was restarted', async (t) => {
    const sandbox = await thaw.sdk.sandboxes.create({ memory_mb: 256 });
    const vm = await vmOf(thaw, sandbox.id);
    if (groups(vm).length === 0) return t.skip('this machine lets nobody make control groups here');
    const expected = (await processesOf(thaw, vm)).sort();
    assert.equal(expected.length, 4, 'keeper, pager, block store, VMM');
    for (const { folder, version, controllers } of groups(vm)) {
      for (const controller of controllers) {
        for (const { name, value } of settings(version, controller, limitsOf({ vcpus: 1, memoryMb: 256 }))) {
          const file = path.join(folder, name);
          if (existsSync(file)) assert.equal((await readFile(file, 'utf8')).trim(), value, name);
        }
      }
      assert.deepEqual((await inside(folder)).sort(), expected);
    }
    process.kill((await thaw.agentPids()).agent, 'SIGKILL');
    await eventually(async () => assert.equal(await thaw.sh(sandbox, 'echo back'), 'back\n'));
    for (const { folder } of groups(vm)) assert.deepEqual((await inside(folder)).sort(), expected);
    await thaw.sdk.sandboxes.delete(sandbox.id);
    for (const { folder } of groups(vm)) assert.equal(existsSync(folder), false);
  });

  test('a pause gives the group back, a resume makes it again', async (t) => {
    const { id } = await thaw.sdk.sandboxes.create({ memory_mb: 256 });
    const vm = await vmOf(thaw, id);
    if (groups(vm).length === 0) return t.skip('this machine lets nobody make control groups here');
    await thaw.sdk.sandboxes.pause(id);
    for (const { folder } of groups(vm)) assert.equal(existsSync(folder), false);
    await thaw.sdk.sandboxes.resume(id);
    for (const { folder } of groups(await vmOf(thaw, id))) assert.equal((await inside(folder)).length, 4);
    await thaw.sdk.sandboxes.delete(id);
  });

  test('a sandbox that dies leaves no group', async (t) => {
    const { id } = await thaw.sdk.sandboxes.create({ memory_mb: 256 });
    const vm = await vmOf(thaw, id);
    if (groups(vm).length === 0) return t.skip('this machine lets nobody make control groups here');
    const keeper = (await allProcesses()).find(
      ({ argv }) => argv[1] === path.join(thaw.run, 'sandboxes', vm),
    );
    process.kill(keeper!.pid, 'SIGKILL');
    await eventually(async () => {
      for (const { folder } of groups(vm)) assert.equal(existsSync(folder), false);
    });
    await thaw.sdk.sandboxes.delete(id);
  });
});

async function inside(group: string): Promise<number[]> {
  return (await readFile(members(group), 'utf8'))
    .split('\n')
    .filter((line) => line !== '')
    .map(Number);
}

/** The keeper and its children. */
async function processesOf(thaw: TestThaw, vm: string): Promise<number[]> {
  const all = await allProcesses();
  const keeper = all.find(({ argv }) => argv[1] === path.join(thaw.run, 'sandboxes', vm))!;
  return [keeper.pid, ...all.filter(({ parent }) => parent === keeper.pid).map(({ pid }) => pid)];
}
