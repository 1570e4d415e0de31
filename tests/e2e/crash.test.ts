/** kill -9 of everything that runs, at bad moments: what was sealed is there, what runs goes on, and never twice. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import type { SandboxStatus } from '@thaw/api';
import { Checksummer } from './checksummer.ts';
import { FAULTS, faultHappened, setFault } from './faults.ts';
import { type Daemons, eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { fullTraces } from './places.ts';
import { sample, TAKE_ALL } from './sample.ts';
import { isRunning, type Traces } from './traces.ts';

await ownHost(import.meta.filename);

const SLOTS = 2;
const VMM = 'qemu-system-x86_64';
const DAEMONS = ['agent', 'plane', 'postgres'] as const;
const seed = process.env.THAW_TEST_SEED ?? randomBytes(4).toString('hex');
const SETTLED: readonly SandboxStatus[] = ['running', 'paused', 'error'];

/** Where the host agent dies: around the moments that decide which build counts and which VM runs. */
const DEADLY = [
  'pause:dump',
  'pause:rename-build',
  'pause:commit-head',
  'pause:fsync-head',
  'pause:end',
  'snapshot:go-on',
  'snapshot:rebase-disk',
  'template:commit-head',
];

describe('after kill -9', () => {
  let thaw: TestThaw;
  let idle: Traces;
  before(async () => {
    thaw = await startThaw({
      env: { ...FAULTS, THAW_SLOT_POOL: String(SLOTS), THAW_RECONCILE_MS: '300' },
    });
    idle = await fullTraces(thaw, SLOTS);
  });
  afterEach(async () => {
    await eventually(() => thaw.destroyAll());
    const same = (now: Traces) => isDeepStrictEqual(now, idle);
    assert.deepEqual(await thaw.settledTraces(same), idle);
  });
  after(() => thaw?.stop());

  const { create, pause, resume, get, stats } = {
    create: (template = 'minimal') => thaw.sdk.sandboxes.create({ template }),
    pause: (id: string) => thaw.sdk.sandboxes.pause(id),
    resume: (id: string) => thaw.sdk.sandboxes.resume(id),
    get: (id: string) => thaw.sdk.sandboxes.get(id),
    stats: (id: string) => thaw.sdk.sandboxes.stats(id),
  };

  async function kill(...roles: (keyof Daemons)[]): Promise<void> {
    const before = await thaw.agentPids();
    for (const role of roles) process.kill(before[role], 'SIGKILL');
    await serves(before, roles);
  }

  /** Others run in the places of those that were killed, and Thaw answers. */
  async function serves(before: Daemons, killed: readonly (keyof Daemons)[]): Promise<void> {
    await eventually(async () => {
      const now = await thaw.agentPids();
      for (const role of killed) assert.ok(now[role] !== 0 && now[role] !== before[role], role);
      await thaw.sdk.ready();
      await Array.fromAsync(thaw.sdk.sandboxes.list());
    }, 60_000);
  }

  async function settled(id: string): Promise<SandboxStatus> {
    return eventually(async () => {
      const { status } = await get(id);
      assert.ok(SETTLED.includes(status), `it is ${status}`);
      return status;
    });
  }

  /** One VM if it runs, none if not. */
  async function assertVms(count: number): Promise<void> {
    const now = await thaw.settledTraces(({ processes }) => (processes[VMM] ?? 0) === count);
    assert.equal(now.processes[VMM] ?? 0, count);
    assert.equal(now.sandboxes.length, count);
  }

  async function busy(): Promise<{ id: string; guest: Checksummer }> {
    const { id } = await create('base');
    const guest = await Checksummer.start(thaw, id, { seed, pages: 1024, blocks: 512 });
    await guest.go();
    return { id, guest };
  }

  it(`of a daemon between pause and resume, nothing is lost (seed ${seed})`, async () => {
    const { id, guest } = await busy();
    for (const killed of [['agent'], ['plane'], ['postgres'], DAEMONS] as const) {
      await pause(id);
      await kill(...killed);
      assert.equal(await settled(id), 'paused', `${killed}`);
      await assertVms(0);
      await resume(id);
      await guest.check(`killed: ${killed}`);
      await guest.go();
    }
  });

  it('of a daemon while a sandbox runs, it goes on', async () => {
    const { id, guest } = await busy();
    const { pids } = await stats(id);
    for (const killed of DAEMONS) {
      const during = thaw.sh(id, 'sleep 3').catch(() => {});
      await kill(killed);
      await during;
      assert.equal(await settled(id), 'running', killed);
      assert.deepEqual((await stats(id)).pids, pids);
      await guest.check(`killed: ${killed}`);
      await guest.go();
      await assertVms(1);
    }
    await pause(id);
    await assertVms(0);
    await resume(id);
    await guest.check('paused after that');
  });

  it(`of the host agent in the middle of a seal, nothing is lost (seed ${seed})`, async () => {
    const { id, guest } = await busy();
    for (const label of TAKE_ALL ? DEADLY : sample(DEADLY, 3, seed)) {
      const before = await thaw.agentPids();
      await setFault(thaw, label, 'kill');
      const verb = label.startsWith('pause')
        ? pause(id)
        : thaw.sdk.snapshots.create(id, { name: 'frozen', overwrite: true });
      const answer = await verb.catch((error: Error) => error);
      assert.ok(await faultHappened(thaw), `${label} was not reached: ${answer}\n${thaw.log(8)}`);
      await serves(before, ['agent']);
      const status = await settled(id);
      await assertVms(status === 'running' ? 1 : 0);
      if (!label.startsWith('pause')) assert.equal(status, 'running', label);
      if (status !== 'running') await resume(id);
      await guest.check(`it was ${status} after ${label}`);
      await guest.go();
      await pause(id);
      await resume(id);
      await guest.check(`paused after ${label}`);
      await guest.go();
      await assertVms(1);
    }
    await thaw.sdk.snapshots.delete('frozen').catch(() => {});
  });

  it('of the control plane in the middle of a pause, the pause comes to its end', async () => {
    const { id, guest } = await busy();
    const answer = pause(id).catch((error: Error) => error);
    await kill('plane');
    await answer;
    const status = await settled(id);
    if (status !== 'running') await resume(id);
    await guest.check(`it was ${status}`);
    await assertVms(1);
  });

  it('of the host agent in the middle of a create, nothing is left', async () => {
    const rows = async () => (await Array.fromAsync(thaw.sdk.sandboxes.list())).length;
    const labels = ['create:write-record', 'create:start-vm', 'create:init', 'create:write-machine'];
    for (const label of TAKE_ALL ? labels : sample(labels, 1, seed)) {
      const before = await thaw.agentPids();
      await setFault(thaw, label, 'kill');
      await assert.rejects(create(), label);
      await serves(before, ['agent']);
      await eventually(async () => assert.equal(await rows(), 0, label));
      await assertVms(0);
    }
  });

  for (const role of ['vmm', 'blockstore', 'keeper']) {
    it(`of its ${role}, a sandbox is an error and goes on from its last seal`, async () => {
      const { id } = await create();
      await thaw.sh(id, 'echo sealed | tee /root/file > /dev/shm/file; sync');
      const { build } = await pause(id);
      await resume(id);
      await thaw.sh(id, 'echo lost | tee /root/file > /dev/shm/file; sync');
      process.kill((await stats(id)).pids[role]!, 'SIGKILL');
      await eventually(async () => assert.equal((await get(id)).status, 'error'));
      assert.ok((await get(id)).error_reason);
      await assertVms(0);
      const resumed = await resume(id);
      assert.deepEqual([resumed.status, resumed.rolled_back_to], ['running', build?.id]);
      assert.equal(await thaw.sh(id, 'cat /root/file /dev/shm/file'), 'sealed\nsealed\n');
      await assertVms(1);
    });
  }

  it(`of its pager, a sandbox goes on with another one (seed ${seed})`, async () => {
    const { id, guest } = await busy();
    const killPager = async (): Promise<void> => {
      const { pager, ...others } = (await stats(id)).pids;
      process.kill(pager!, 'SIGKILL');
      await eventually(async () => {
        const { pager: now, ...same } = (await stats(id)).pids;
        assert.ok(now !== undefined && now !== pager);
        assert.deepEqual(same, others);
      });
      assert.equal((await get(id)).status, 'running');
    };
    const goesOn = async (message: string): Promise<void> => {
      await guest.check(message);
      await guest.go();
    };
    await killPager();
    await goesOn('booted');
    await pause(id);
    await resume(id);
    await killPager();
    await killPager();
    await goesOn('resumed');
    await thaw.sdk.snapshots.create(id, { name: 'frozen', overwrite: true });
    await killPager();
    await goesOn('snapshotted');
    await kill('agent');
    await eventually(() => stats(id));
    await killPager();
    await goesOn('taken over');
    process.kill((await stats(id)).pids.pager!, 'SIGKILL');
    await kill('agent');
    await eventually(() => stats(id));
    await goesOn('lost with the host agent');
    await pause(id);
    await resume(id);
    await guest.check('paused at the end');
    await assertVms(1);
    await thaw.sdk.snapshots.delete('frozen');
  });

  it('of thaw up with all its daemons, sandboxes are found again', async () => {
    const { id, guest } = await busy();
    const paused = await create();
    await thaw.sh(paused, 'echo here > /dev/shm/file');
    await pause(paused.id);
    const before = await thaw.agentPids();
    process.kill(before.up, 'SIGKILL');
    await eventually(async () => {
      for (const pid of Object.values(before)) assert.equal(await isRunning(pid), false);
    });
    await thaw.start();
    assert.equal(await settled(id), 'running');
    await guest.check('taken over');
    await assertVms(1);
    await resume(paused.id);
    assert.equal(await thaw.sh(paused, 'cat /dev/shm/file'), 'here\n');
  });
});
