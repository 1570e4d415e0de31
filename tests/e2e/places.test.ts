/** Places for VMs that are made before anybody asks: a start in one is like any other, and none stays behind. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Cgroups } from '../../packages/host-agent/src/os/cgroup/cgroups.ts';
import { readLayout } from '../../packages/host-agent/src/os/cgroup/layout.ts';
import { limitsOf, settings } from '../../packages/host-agent/src/os/cgroup/limits.ts';
import { KERNEL, sandboxGroup } from '../../packages/host-agent/src/os/cgroup/paths.ts';
import { instanceOf } from '../../scripts/throwaway/leftovers.ts';
import { FAULTS, faultHappened, setFault } from './faults.ts';
import { Figures } from './figures.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { INTERNET, ownHost } from './own-host.ts';
import { assertSame, fullTraces, placesReady, tookPlace, VMM, vmms, vmOf, withoutVmms } from './places.ts';
import { allProcesses, type Traces } from './traces.ts';

await ownHost(import.meta.filename);

const SLOTS = 1;
const MEMORY_MB = 256;

const PEER = path.join(import.meta.dirname, '../../packages/host-agent/src/network/fixture/peer.ts');
const PORT = 80;
/** Sends five times a second and counts what comes back. */
const FLOW = `exec 3<>/dev/udp/${INTERNET}/${PORT}; n=0
  while :; do echo x >&3; read -t 1 -n 1 -u 3 _ && n=$((n+1)) && echo $n > /tmp/flow; sleep 0.2; done`;

/** Whether a VMM has a file of the build mapped. */
async function holds(build: string): Promise<boolean> {
  const maps = (await vmms()).map((pid) => readFile(`/proc/${pid}/maps`, 'utf8').catch(() => ''));
  return (await Promise.all(maps)).some((map) => map.includes(build));
}

describe('a place that was made ahead', () => {
  let thaw: TestThaw;
  let idle: Traces;
  const env: Record<string, string> = {
    ...FAULTS,
    THAW_PLACES: '2',
    THAW_SLOT_POOL: String(SLOTS),
    THAW_BUILD_GRACE_SEC: '1',
    THAW_RECONCILE_MS: '300',
  };
  let peer: ChildProcess;
  before(async () => {
    const argv = ['netns', 'exec', 'internet', process.execPath, PEER, 'serve', String(PORT)];
    peer = spawn('ip', argv, { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(peer.stdout!, 'data');
    thaw = await startThaw({ env });
    idle = withoutVmms(await fullTraces(thaw, SLOTS));
    // The first boots and keeps its boot.
    await thaw.sdk.sandboxes.delete((await create()).id);
    await assertIdle('after the first');
  });
  after(async () => {
    await thaw?.stop();
    const ended = once(peer, 'exit');
    peer.kill('SIGKILL');
    await ended;
  });

  const create = (more = {}) => thaw.sdk.sandboxes.create({ memory_mb: MEMORY_MB, ...more });

  const assertIdle = (message: string) => assertSame(thaw, idle, message);

  async function restartWith(places: string): Promise<void> {
    env.THAW_PLACES = places;
    await thaw.restart();
    await placesReady(thaw);
  }

  it('is taken by creates, forks and resumes, and another takes its turn', async () => {
    const made = [await create(), await create()];
    assert.deepEqual(made.map(tookPlace), [true, true]);
    // Two wait, the third start of a moment makes its own.
    await placesReady(thaw);
    const [one] = made;
    const forked = await thaw.sdk.sandboxes.fork(one!.id, { count: 3 });
    const forks = forked.map((fork) => {
      assert.ok('sandbox' in fork, JSON.stringify(fork));
      return fork.sandbox;
    });
    assert.deepEqual(forks.map(tookPlace).toSorted(), [false, true, true]);
    await placesReady(thaw);
    await thaw.sdk.sandboxes.pause(one!.id);
    assert.ok(tookPlace(await thaw.sdk.sandboxes.resume(one!.id)));
    const names = await Promise.all([...made, ...forks].map(({ id }) => vmOf(thaw, id)));
    assert.equal(new Set(names).size, names.length);
    for (const { id } of [...made, ...forks]) assert.equal(await thaw.sh(id, 'hostname'), `${id}\n`);
    const { body } = await thaw.api<string>('GET', '/metrics');
    assert.equal(new Figures(body).sum('thaw_orphans', { kind: 'vm' }), 0);
    await thaw.destroyAll();
    await assertIdle('all destroyed');
  });

  it('has the limits of the sandbox that starts in it', async (t) => {
    const sandbox = await create();
    assert.ok(tookPlace(sandbox));
    const vm = await vmOf(thaw, sandbox.id);
    assert.notEqual(vm, sandbox.id);
    const instance = await instanceOf(thaw.data);
    const { trees } = await readLayout(KERNEL);
    await using probe = await Cgroups.open({ instance: `p${process.pid}`, group: 'auto' });
    if (probe.controllers.length === 0) return t.skip('this machine lets nobody make control groups here');
    const { pids } = await thaw.sdk.sandboxes.stats(sandbox.id);
    for (const { parent, version, controllers } of trees) {
      const group = sandboxGroup(path.join(parent, `thaw-${instance}`), vm);
      for (const controller of controllers.filter((name) => probe.controllers.includes(name))) {
        const limits = limitsOf({ vcpus: 1, memoryMb: MEMORY_MB });
        for (const { name, value, optional } of settings(version, controller, limits)) {
          const found = await readFile(path.join(group, name), 'utf8').catch(() => undefined);
          if (found !== undefined || !optional) assert.equal(found?.trim(), value, name);
        }
        const inside = (await readFile(path.join(group, 'cgroup.procs'), 'utf8')).trim().split('\n');
        for (const pid of Object.values(pids)) assert.ok(inside.includes(String(pid)), controller);
      }
    }
    await thaw.destroyAll();
  });

  it('lets its guest reach what the sandbox may, from its first moment', async () => {
    await placesReady(thaw);
    const made = await Promise.all([create({ network: { internet: false } }), create()]);
    assert.deepEqual(made.map(tookPlace), [true, true]);
    const [shut, open] = made;
    assert.deepEqual(
      made.map(({ timings_ms }) => 'create:set-egress' in (timings_ms ?? {})),
      [true, false],
    );
    // Nothing has come back to either before it was somebody, and to the one nothing comes back at all.
    const flow = `setsid bash -c '${FLOW}' < /dev/null > /dev/null 2>&1 &`;
    for (const { id } of made) await thaw.sh(id, flow);
    const came = (id: string) => thaw.sh(id, 'cat /tmp/flow 2> /dev/null || echo 0');
    await eventually(async () => assert.ok(Number(await came(open!.id)) > 2));
    await thaw.sdk.sandboxes.pause(shut!.id);
    await placesReady(thaw);
    assert.ok(tookPlace(await thaw.sdk.sandboxes.resume(shut!.id)));
    await sleep(2000);
    assert.equal(await came(shut!.id), '0\n');
    // A start that can't be given its rules does not happen.
    await placesReady(thaw);
    await setFault(thaw, 'create:set-egress');
    await assert.rejects(create({ network: { internet: false } }));
    assert.ok(await faultHappened(thaw));
    await thaw.destroyAll();
    await assertIdle('rules');
  });

  it('has a VMM that waits for a sandbox of the size that most have', async () => {
    const vmmOf = async (id: string) => (await thaw.sdk.sandboxes.stats(id)).pids.vmm!;
    // A create that failed has forgotten its kept boot: this one boots and keeps another.
    await thaw.sdk.sandboxes.delete((await create()).id);
    await placesReady(thaw);
    // What was created last, but no sandbox.
    assert.ok((await vmms()).length <= 1);
    const { id, backend } = await create();
    assert.equal(backend, 'mapped');
    await thaw.sh(id, 'echo kept | tee /root/kept > /dev/shm/kept; sync');
    await thaw.sdk.sandboxes.pause(id);
    for (let round = 0; round < 3; round++) {
      await placesReady(thaw);
      const waiting = await vmms();
      assert.equal(waiting.length, 2, thaw.log());
      for (const pid of waiting) {
        const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
        // Its own, some of it touched ahead, and nothing for a guest.
        assert.ok(Number(/^Rss: +(\d+) kB/m.exec(rollup)?.[1]) < 96 * 1024, rollup);
      }
      const clone = await create();
      assert.ok(waiting.includes(await vmmOf(clone.id)), 'a clone of the same');
      await thaw.sdk.sandboxes.resume(id);
      assert.ok(waiting.includes(await vmmOf(id)), 'a resume');
      assert.equal(await thaw.sh(id, 'cat /root/kept /dev/shm/kept'), 'kept\nkept\n');
      assert.equal(await thaw.sh(clone.id, 'hostname'), `${clone.id}\n`);
      await thaw.sdk.sandboxes.delete(clone.id);
      await thaw.sdk.sandboxes.pause(id);
    }
    // One of another size makes its own, and so does a second one that comes too early.
    await placesReady(thaw);
    const waiting = await vmms();
    const other = await create({ memory_mb: 2 * MEMORY_MB });
    assert.ok(!waiting.includes(await vmmOf(other.id)));
    await placesReady(thaw);
    await thaw.sdk.sandboxes.pause(other.id);
    const resumed = await Promise.all([id, other.id].map((each) => thaw.sdk.sandboxes.resume(each)));
    assert.deepEqual(resumed.map(tookPlace), [true, true]);
    for (const { id } of resumed) assert.equal(await thaw.sh(id, 'hostname'), `${id}\n`);
    await thaw.sdk.sandboxes.delete(other.id);
    await thaw.sdk.sandboxes.delete((await create()).id);
    await placesReady(thaw);
    await setFault(thaw, 'create:end-ahead');
    const made = await Promise.allSettled([create(), create()]);
    assert.ok(await faultHappened(thaw));
    assert.deepEqual(made.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected']);
    for (const each of made) if (each.status === 'fulfilled') await thaw.sdk.sandboxes.delete(each.value.id);
    // A template that is no more has no clones.
    const short = await create();
    const { id: template } = await thaw.sdk.snapshots.create(short.id, { name: 'short' });
    await thaw.sdk.sandboxes.delete(short.id);
    await thaw.sdk.sandboxes.delete((await create({ template: 'short' })).id);
    await placesReady(thaw);
    const { build } = JSON.parse(await readFile(path.join(thaw.data, 'templates', template, 'head'), 'utf8'));
    assert.ok(await holds(build));
    await thaw.sdk.snapshots.delete('short');
    await eventually(async () => assert.ok(!(await holds(build))));
    // One that dies takes its place with it.
    await thaw.sdk.sandboxes.pause(id);
    for (const role of [VMM, 'thaw-blockstore', 'thaw-pager']) {
      await placesReady(thaw);
      const before = (await allProcesses()).filter(({ program }) => program === role);
      for (const { pid } of before) process.kill(pid, 'SIGKILL');
      await eventually(async () => {
        const now = (await allProcesses()).filter(({ program }) => program === role);
        assert.equal(now.length, before.length);
        assert.ok(now.every(({ pid }) => !before.some((old) => old.pid === pid)));
      });
    }
    await placesReady(thaw);
    await thaw.sdk.sandboxes.resume(id);
    assert.equal(await thaw.sh(id, 'cat /root/kept /dev/shm/kept'), 'kept\nkept\n');
    await thaw.destroyAll();
    await assertIdle('no sandbox, no VMM');
  });

  it('is missing when its keeper dies, until another is made', async () => {
    const keepers = (await allProcesses()).filter(({ program }) => program === 'thaw-keeper');
    assert.equal(keepers.length, 2);
    for (const { pid } of keepers) process.kill(pid, 'SIGKILL');
    await eventually(async () => {
      const now = (await allProcesses()).filter(({ program }) => program === 'thaw-keeper');
      assert.ok(now.length === 2 && now.every(({ pid }) => !keepers.some((old) => old.pid === pid)));
    });
    await assertIdle('keepers died');
    assert.ok(tookPlace(await create()));
    await thaw.destroyAll();
  });

  it('is never made where none are wanted', async () => {
    const paused = await create();
    await thaw.sdk.sandboxes.pause(paused.id);
    await restartWith('0');
    const { sandboxes, processes } = await thaw.settledTraces((now) => now.sandboxes.length === 0);
    assert.deepEqual(sandboxes, []);
    assert.equal(processes['thaw-keeper'], undefined);
    assert.ok(!tookPlace(await thaw.sdk.sandboxes.resume(paused.id)));
    assert.equal(await vmOf(thaw, paused.id), paused.id);
    await restartWith('2');
    assert.equal(await thaw.sh(paused.id, 'echo fine'), 'fine\n');
    await thaw.destroyAll();
    await assertIdle('again');
  });
});
