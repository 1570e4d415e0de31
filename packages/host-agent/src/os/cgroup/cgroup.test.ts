import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { Cgroups, type Folders } from './cgroups.ts';
import { limitsOf } from './limits.ts';
import type { CgroupSources } from './paths.ts';

const INSTANCE = 'abc123';
const LIMITS = { cpus: 2, shares: 1, memoryBytes: 2 ** 30, tasks: 100 };
const FILES = {
  cpu: ['cpu.cfs_period_us', 'cpu.cfs_quota_us', 'cpu.shares'],
  memory: ['memory.limit_in_bytes'],
  pids: ['pids.max'],
  unified: [
    'cpu.max',
    'cpu.weight',
    'memory.max',
    'pids.max',
    'cgroup.subtree_control',
    'cgroup.controllers',
  ],
};

let root: string;

beforeEach(() => {
  root = mkdtempSync(path.join(os.tmpdir(), 'thaw-cgroup-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** A folder of plain files: what the kernel does with a group's files is done here. */
function folders(busy: { times: number } = { times: 0 }): Folders {
  const fill = (folder: string) => {
    const tree = path.relative(root, folder).split('/')[0] as keyof typeof FILES;
    for (const name of [...FILES[tree], 'cgroup.procs']) {
      const file = path.join(folder, name);
      const text = name === 'cgroup.controllers' ? 'cpu memory pids\n' : '';
      if (!existsSync(file)) writeFileSync(file, text);
    }
  };
  return {
    async make(folder) {
      const made = mkdirSync(folder, { recursive: true });
      if (made === undefined) return;
      for (let each = folder; each.length >= made.length; each = path.dirname(each)) fill(each);
    },
    async remove(folder) {
      if (!existsSync(folder)) throw Object.assign(new Error('no such group'), { code: 'ENOENT' });
      const below = readdirSync(folder, { withFileTypes: true }).some((entry) => entry.isDirectory());
      if (below || busy.times-- > 0) throw Object.assign(new Error('busy'), { code: 'EBUSY' });
      rmSync(folder, { recursive: true });
    },
  };
}

function sources(mounts: string[], membership: string): CgroupSources {
  const [mountinfo, own] = [path.join(root, 'mountinfo'), path.join(root, 'membership')];
  writeFileSync(mountinfo, `${mounts.map((mount, id) => `${id + 30} 1 0:${id} ${mount}`).join('\n')}\n`);
  writeFileSync(own, membership);
  return { mountinfo, membership: own };
}

function version1(memoryGroup = '/'): CgroupSources {
  for (const name of ['cpu', 'memory', 'pids']) mkdirSync(path.join(root, name));
  const mount = (name: string, shown: string) =>
    `/ ${root}/${name} rw,relatime shared:1 - cgroup cgroup rw,${shown}`;
  return sources(
    [mount('cpu', 'cpu,cpuacct'), mount('memory', 'memory'), mount('pids', 'pids')],
    `4:memory:${memoryGroup}\n8:pids:/\n1:cpu,cpuacct:/\n0::/\n`,
  );
}

function version2(own = '/', controllers = 'cpuset cpu io memory pids'): CgroupSources {
  mkdirSync(path.join(root, 'unified'));
  writeFileSync(path.join(root, 'unified/cgroup.controllers'), `${controllers}\n`);
  writeFileSync(path.join(root, 'unified/cgroup.subtree_control'), '');
  return sources([`/ ${root}/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate`], `0::${own}\n`);
}

function read(file: string): string {
  return readFileSync(path.join(root, file), 'utf8');
}

test('version 1: limits in a tree for each controller, gone with the sandbox', async () => {
  const options = { instance: INSTANCE, group: 'auto', sources: version1() };
  const cgroups = await Cgroups.open(options, folders());
  assert.deepEqual(cgroups.controllers, ['cpu', 'memory', 'pids']);
  await cgroups.make('sb1', LIMITS);
  await cgroups.enter('sb1', 4711);
  assert.equal(read('cpu/thaw-abc123/sb1/cpu.cfs_quota_us'), '200000');
  assert.equal(read('cpu/thaw-abc123/sb1/cpu.cfs_period_us'), '100000');
  assert.equal(read('cpu/thaw-abc123/sb1/cpu.shares'), '1024');
  assert.equal(read('memory/thaw-abc123/sb1/memory.limit_in_bytes'), String(2 ** 30));
  assert.equal(read('pids/thaw-abc123/sb1/pids.max'), '100');
  for (const tree of ['cpu', 'memory', 'pids'])
    assert.equal(read(`${tree}/thaw-abc123/sb1/cgroup.procs`), '4711');
  await cgroups.remove('sb1');
  await cgroups.remove('sb1');
  await cgroups[Symbol.asyncDispose]();
  for (const tree of ['cpu', 'memory', 'pids']) assert.deepEqual(readdirSync(path.join(root, tree)), []);
});

test('version 2: controllers are handed down, limits are in one folder', async () => {
  const options = { instance: INSTANCE, group: 'auto', sources: version2() };
  const cgroups = await Cgroups.open(options, folders());
  assert.deepEqual(cgroups.controllers, ['cpu', 'memory', 'pids']);
  await cgroups.make('sb1', LIMITS);
  await cgroups.enter('sb1', 4711);
  assert.equal(read('unified/thaw-abc123/sb1/cpu.max'), '200000 100000');
  assert.equal(read('unified/thaw-abc123/sb1/cpu.weight'), '100');
  assert.equal(read('unified/thaw-abc123/sb1/memory.max'), String(2 ** 30));
  assert.equal(read('unified/thaw-abc123/sb1/pids.max'), '100');
  assert.equal(read('unified/thaw-abc123/sb1/cgroup.procs'), '4711');
  // A folder of plain files keeps the last thing written.
  assert.equal(read('unified/cgroup.subtree_control'), '+pids');
  assert.equal(read('unified/thaw-abc123/cgroup.subtree_control'), '+pids');
  await cgroups.remove('sb1');
  await cgroups[Symbol.asyncDispose]();
  assert.equal(existsSync(path.join(root, 'unified/thaw-abc123')), false);
});

test("a group that somebody else made is neither divided nor left, unless it is named as Thaw's", async () => {
  const here = version1('/jobs/17');
  const own = await Cgroups.open({ instance: INSTANCE, group: 'auto', sources: here }, folders());
  assert.deepEqual(own.controllers, ['cpu', 'pids']);
  assert.match(own.missing.memory!, /\/jobs\/17.*THAW_CGROUP/);
  assert.deepEqual(readdirSync(path.join(root, 'memory')), []);
  const named = await Cgroups.open({ instance: INSTANCE, group: '/jobs/thaw', sources: here }, folders());
  assert.deepEqual(named.controllers, ['cpu', 'memory', 'pids']);
  await named.make('sb1', LIMITS);
  assert.equal(read('memory/jobs/thaw/thaw-abc123/sb1/memory.limit_in_bytes'), String(2 ** 30));
});

test('both versions on one machine: each controller where it is', async () => {
  const first = version1();
  writeFileSync(
    first.mountinfo,
    read('mountinfo')
      .split('\n')
      .filter((line) => !line.includes('memory'))
      .join('\n'),
  );
  const text = read('mountinfo');
  version2('/', 'memory');
  writeFileSync(first.mountinfo, text + read('mountinfo'));
  writeFileSync(first.membership, '8:pids:/\n1:cpu,cpuacct:/\n0::/\n');
  const cgroups = await Cgroups.open({ instance: INSTANCE, group: 'auto', sources: first }, folders());
  assert.deepEqual(cgroups.missing, {});
  await cgroups.make('sb1', LIMITS);
  assert.equal(read('unified/thaw-abc123/sb1/memory.max'), String(2 ** 30));
  assert.equal(read('cpu/thaw-abc123/sb1/cpu.cfs_quota_us'), '200000');
});

test('all sandboxes together have the shares of each, and a minimum without any', async () => {
  for (const [sources, file, one] of [
    [version1, 'cpu/thaw-abc123/cpu.shares', 1024],
    [version2, 'unified/thaw-abc123/cpu.weight', 100],
  ] as const) {
    const options = { instance: INSTANCE, group: 'auto', sources: sources() };
    const cgroups = await Cgroups.open(options, folders());
    await Promise.all(['sb1', 'sb2', 'sb3'].map((id) => cgroups.make(id, LIMITS)));
    assert.equal(read(file), String(3 * one));
    await cgroups.make('sb4', { ...LIMITS, shares: 4 });
    assert.equal(read(file), String(7 * one));
    await cgroups.remove('sb1');
    assert.equal(read(file), String(6 * one));
    await Promise.all(['sb2', 'sb3', 'sb4'].map((id) => cgroups.remove(id)));
    assert.equal(read(file), String(one));
    await cgroups[Symbol.asyncDispose]();
  }
});

test('without cgroups, read-only or switched off: nothing is limited, and it says why', async () => {
  const none = await Cgroups.open({ instance: INSTANCE, group: 'auto', sources: sources([], '') });
  assert.deepEqual(none.controllers, []);
  assert.match(none.missing.cpu!, /no cgroup controller/);
  await none.make('sb1', LIMITS);
  await none.enter('sb1', 4711);
  await none.remove('sb1');

  const sealed = version2();
  writeFileSync(sealed.mountinfo, read('mountinfo').replace(' rw,nosuid', ' ro,nosuid'));
  const readOnly = await Cgroups.open({ instance: INSTANCE, group: 'auto', sources: sealed }, folders());
  assert.match(readOnly.missing.memory!, /read-only/);

  const off = await Cgroups.open({ instance: INSTANCE, group: 'off', sources: sealed }, folders());
  assert.deepEqual(Object.keys(off.missing), ['cpu', 'memory', 'pids']);
});

test('a group that stays busy for a moment is removed; a limit that fails leaves no group', async () => {
  const busy = { times: 3 };
  const options = { instance: INSTANCE, group: 'auto', sources: version1() };
  const cgroups = await Cgroups.open(options, folders(busy));
  await cgroups.make('sb1', LIMITS);
  await cgroups.remove('sb1');
  assert.equal(existsSync(path.join(root, 'cpu/thaw-abc123/sb1')), false);

  const without = { ...folders(), make: async (folder: string) => mkdirSync(folder, { recursive: true }) };
  const broken = await Cgroups.open(options, without);
  await assert.rejects(broken.make('sb2', LIMITS), { code: 'ENOENT' });
  assert.equal(existsSync(path.join(root, 'cpu/thaw-abc123/sb2')), false);
});

test('a sweep removes the groups of sandboxes that are gone', async () => {
  const options = { instance: INSTANCE, group: 'auto', sources: version1() };
  const cgroups = await Cgroups.open(options, folders());
  for (const id of ['sb1', 'sb2', 'sb3']) await cgroups.make(id, LIMITS);
  assert.deepEqual((await cgroups.sweep(new Set(['sb2']))).sort(), ['sb1', 'sb3']);
  assert.deepEqual(await groups('cpu'), ['sb2']);
  await cgroups[Symbol.asyncDispose]();
  assert.deepEqual(await groups('memory'), ['sb2']);
});

test('the groups of an instance that died are removed by another, those of living ones are not', async () => {
  const here = version1();
  const open = (instance: string) => Cgroups.open({ instance, group: 'auto', sources: here }, folders());
  const dead = await open('dddddd');
  const living = await open('111111');
  for (const instance of [dead, living]) await instance.make('sb1', LIMITS);
  await living.enter('sb1', 4711);
  await open(INSTANCE);
  assert.equal(existsSync(path.join(root, 'cpu/thaw-dddddd/sb1')), true, 'it was made just now');
  const old = new Date(Date.now() - 120_000);
  for (const tree of ['cpu', 'memory', 'pids'])
    for (const group of ['thaw-dddddd/sb1', 'thaw-dddddd', 'thaw-111111/sb1', 'thaw-111111'])
      utimesSync(path.join(root, tree, group), old, old);
  await open(INSTANCE);
  assert.equal(existsSync(path.join(root, 'cpu/thaw-111111/sb1')), true);
  assert.equal(existsSync(path.join(root, 'memory/thaw-dddddd/sb1')), false);
});

test('an instance whose empty group was removed makes it again', async () => {
  const cgroups = await Cgroups.open({ instance: INSTANCE, group: 'auto', sources: version2() }, folders());
  rmSync(path.join(root, 'unified/thaw-abc123'), { recursive: true });
  await cgroups.make('sb1', LIMITS);
  assert.equal(read('unified/thaw-abc123/cgroup.subtree_control'), '+pids');
  assert.equal(read('unified/thaw-abc123/sb1/memory.max'), String(2 ** 30));
});

async function groups(tree: string): Promise<string[]> {
  return readdirSync(path.join(root, tree, `thaw-${INSTANCE}`), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name);
}

test('a sandbox gets more than its guest needs, and no more', () => {
  const limits = limitsOf({ vcpus: 2, memoryMb: 1024 });
  assert.equal(limits.cpus, 3);
  assert.equal(limits.memoryBytes, (2 * 1024 + 512) * 2 ** 20);
  assert.equal(limits.tasks, 260);
});

test("this machine's own groups limit a process and are gone afterwards", async (t) => {
  const cgroups = await Cgroups.open({ instance: `t${process.pid}`, group: 'auto' });
  try {
    if (!cgroups.controllers.includes('pids'))
      return t.skip(cgroups.missing.pids ?? 'no controller for processes');
    await cgroups.make('sb1', { ...LIMITS, tasks: 3 });
    const child = spawn('/bin/sh', ['-c', 'read _; for i in 1 2 3 4 5 6; do sleep 5 & done; wait'], {
      stdio: ['pipe', 'ignore', 'pipe'],
      detached: true,
    });
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    await cgroups.enter('sb1', child.pid!);
    child.stdin.end('\n');
    await until(() => /fork/i.test(said));
    // Ends with the processes it started: they share its group of processes.
    process.kill(-child.pid!, 'SIGKILL');
    await once(child, 'close');
    await cgroups.remove('sb1');
    assert.deepEqual(await cgroups.sweep(new Set()), []);
  } finally {
    await cgroups[Symbol.asyncDispose]();
  }
});

async function until(holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!holds()) {
    assert.ok(performance.now() < deadline, 'waited in vain');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
