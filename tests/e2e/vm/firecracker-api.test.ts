/**
 * What Thaw counts on in Firecracker itself, with no guest agent: run against a real one (`THAW_FIRECRACKER_BIN`) it tells
 * whether that still holds, against the fake whether the fake is one.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { copyFile, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createHeader, serialiseHeader } from '@thaw/snapshot';
import { Keeper } from '../../../packages/host-agent/src/keeper/keeper.ts';
import { put } from '../../../packages/host-agent/src/vmm/firecracker-api/api.ts';
import type { FirecrackerError } from '../../../packages/host-agent/src/vmm/firecracker-api/refusal.ts';
import { Pager } from '../../../packages/host-agent/src/vmm/memory.ts';
import { Bare } from './bare.ts';
import { MEMORY_MB, Stage } from './stage.ts';

const MEMORY_BYTES = MEMORY_MB * 2 ** 20;

const state = (name: 'Paused' | 'Resumed') => ({
  method: 'PATCH' as const,
  path: '/vm',
  body: { state: name },
});

const create = (snapshot_type: 'Full' | 'Diff', name: string) =>
  put('/snapshot/create', { snapshot_type, snapshot_path: `${name}.state`, mem_file_path: `${name}.memory` });

const load = (backend_type: 'File' | 'Uffd', backend_path: string) =>
  put('/snapshot/load', {
    snapshot_path: 'all.state',
    mem_backend: { backend_type, backend_path },
    track_dirty_pages: true,
    resume_vm: false,
  });

/** A booted VM, stopped, with all of it in `all.state` and `all.memory`. */
async function parent(stage: Stage): Promise<Bare> {
  const vm = await Bare.start(stage, 'parent');
  await vm.boot(stage);
  await sleep(200);
  await vm.api.call(state('Paused'));
  await vm.api.call(create('Full', 'all'), 60_000);
  return vm;
}

/** A fresh process with the parent's snapshot beside it. */
async function heir(stage: Stage, vm: Bare, name: string): Promise<Bare> {
  const next = await Bare.start(stage, name);
  for (const file of ['all.state', 'all.memory']) await copyFile(vm.file(file), next.file(file));
  return next;
}

it('a VM boots, stops and goes on; both may be said twice', async () => {
  await using stage = await Stage.open('firecracker');
  await using vm = await Bare.start(stage, 'vm');
  assert.equal(await vm.api.state(), 'Not started');
  await assert.rejects(vm.api.call(state('Paused')), { outcome: 'refused', reason: 'wrong-state' });
  await vm.boot(stage);
  for (const name of ['Paused', 'Paused', 'Resumed', 'Resumed'] as const) {
    await vm.api.call(state(name));
    assert.equal(await vm.api.state(), name === 'Paused' ? 'Paused' : 'Running');
  }
  await assert.rejects(vm.api.call(create('Diff', 'x')), { outcome: 'refused', reason: 'wrong-state' });
});

it('a Full snapshot is as large as the memory, a Diff holds what changed, and onto a Full one makes it whole', async () => {
  await using stage = await Stage.open('firecracker');
  await using vm = await parent(stage);
  const full = await stat(vm.file('all.memory'));
  assert.equal(full.size, MEMORY_BYTES);
  await vm.api.call(state('Resumed'));
  await sleep(100);
  await vm.api.call(state('Paused'));
  await copyFile(vm.file('all.memory'), vm.file('onto.memory'));
  const before = await readFile(vm.file('all.memory'));
  await vm.api.call(create('Diff', 'onto'));
  await vm.api.call(create('Diff', 'next'));
  const next = await stat(vm.file('next.memory'));
  assert.equal(next.size, MEMORY_BYTES);
  assert.ok(next.blocks * 512 < MEMORY_BYTES / 16, `${next.blocks * 512} bytes right after another`);
  const onto = await readFile(vm.file('onto.memory'));
  assert.equal(onto.length, MEMORY_BYTES);
  assert.ok(!onto.equals(before), 'what changed is in it');
  await assert.rejects(vm.api.call(create('Diff', 'nowhere/x')), {
    outcome: 'refused',
    reason: 'path-missing',
  });
  await vm.api.call(state('Resumed'));
  await using clone = await Bare.start(stage, 'clone');
  await copyFile(vm.file('onto.state'), clone.file('all.state'));
  await copyFile(vm.file('onto.memory'), clone.file('all.memory'));
  await clone.api.call(load('File', 'all.memory'), 15_000);
  await clone.api.call(state('Resumed'));
  await sleep(100);
  assert.equal(await clone.api.state(), 'Running');
});

it('clones load from a file or through the pager, at once', async () => {
  await using stage = await Stage.open('firecracker');
  await using vm = await parent(stage);
  await using first = await heir(stage, vm, 'first');
  await using second = await heir(stage, vm, 'second');
  await using pager = await Served.start(stage, vm.file('all.memory'));
  await Promise.all([
    first.api.call(load('File', 'all.memory'), 15_000),
    second.api.call(load('Uffd', pager.socket), 15_000),
    pager.met,
  ]);
  await Promise.all([first.api.call(state('Resumed')), second.api.call(state('Resumed'))]);
  await sleep(200);
  for (const clone of [first, second]) assert.equal(await clone.api.state(), 'Running');
  const stats = await pager.pager.stats();
  assert.ok(stats.faults > 2 && stats.pagesFaulted * 4096 < MEMORY_BYTES, JSON.stringify(stats));
  // A Diff of a lazily loaded VM brings nothing in.
  await second.api.call(state('Paused'));
  const { pagesFaulted } = await pager.pager.stats();
  await second.api.call(create('Diff', 'diff'));
  assert.equal((await pager.pager.stats()).pagesFaulted, pagesFaulted);
});

it('a balloon tells the pager what it takes', async () => {
  await using stage = await Stage.open('firecracker');
  await using vm = await parent(stage);
  await using clone = await heir(stage, vm, 'clone');
  await using pager = await Served.start(stage, vm.file('all.memory'));
  await Promise.all([clone.api.call(load('Uffd', pager.socket), 15_000), pager.met]);
  await clone.api.call(state('Resumed'));
  const inflate = { method: 'PATCH' as const, path: '/balloon', body: { amount_mib: 8 } };
  // The guest's driver may not be up yet.
  for (let tries = 0; ; tries++) {
    const done = await clone.api.call(inflate).then(
      () => true,
      () => false,
    );
    if (done) break;
    assert.ok(tries < 100, 'the balloon does not answer');
    await sleep(100);
  }
  for (let tries = 0; (await pager.pager.stats()).removedPages < 2000; tries++) {
    assert.ok(tries < 100, 'nothing was given back');
    await sleep(50);
  }
});

it('a failed load ends the process, a refused one does not', async () => {
  await using stage = await Stage.open('firecracker');
  await using vm = await parent(stage);
  await using wrong = await heir(stage, vm, 'wrong');
  const both = { ...load('File', 'all.memory').body, mem_file_path: 'all.memory' };
  await assert.rejects(wrong.api.call(put('/snapshot/load', both)), {
    outcome: 'refused',
    reason: 'bad-request',
  });
  assert.equal(await wrong.api.state(), 'Not started');
  await assert.rejects(wrong.api.call(load('Uffd', 'nobody.sock')), (error: FirecrackerError) => {
    assert.deepEqual([error.outcome, error.reason], ['fatal', 'pager-missing']);
    return true;
  });
  assert.equal(await wrong.ended(), 1);
  await assert.rejects(wrong.api.state(), { outcome: 'gone' });
  await using configured = await heir(stage, vm, 'configured');
  await configured.api.call(put('/machine-config', { vcpu_count: 1, mem_size_mib: 128 }));
  await assert.rejects(configured.api.call(load('File', 'all.memory')), {
    outcome: 'refused',
    reason: 'not-fresh',
  });
});

it('a VM whose pager died does not answer any more', async () => {
  await using stage = await Stage.open('firecracker');
  await using vm = await parent(stage);
  await using clone = await heir(stage, vm, 'clone');
  await using pager = await Served.start(stage, vm.file('all.memory'));
  await Promise.all([clone.api.call(load('Uffd', pager.socket), 15_000), pager.met]);
  const gone = pager.keeper.gone('pager');
  await pager.keeper.signal('pager', 'KILL');
  await gone;
  // It needs pages now, and nobody brings them.
  const stuck = clone.api.call(state('Resumed')).then(() => clone.api.call(state('Paused'), 1000));
  await assert.rejects(stuck, { outcome: 'timeout' });
});

/** Memory out of a file of all of it, served by Thaw's pager. */
class Served implements AsyncDisposable {
  readonly keeper: Keeper;
  readonly pager: Pager;
  readonly socket: string;
  /** Resolves when the VMM has handed over its memory. */
  readonly met: Promise<void>;

  private constructor(keeper: Keeper, pager: Pager) {
    this.keeper = keeper;
    this.pager = pager;
    this.met = new Promise((resolve) => {
      keeper.on('child', ({ body }) => {
        if (body.event === 'handshake') resolve();
      });
    });
    this.socket = path.join(keeper.runDir, 'vmm/pager.sock');
  }

  static async start(stage: Stage, memory: string): Promise<Served> {
    const id = randomUUID();
    const header = path.join(stage.dir, `${id}.header`);
    const runs = [{ offset: 0, length: MEMORY_BYTES, kind: 'stored' as const }];
    const options = { build: id, size: MEMORY_BYTES, blockSize: 4096, runs, layout: 'sparse' as const };
    await writeFile(header, serialiseHeader(createHeader(options)));
    const keeper = await Keeper.start(
      stage.binaries.keeper,
      path.join(stage.dir, `keeper-${id.slice(0, 8)}`),
    );
    await mkdir(path.join(keeper.runDir, 'vmm'));
    const pager = await Pager.start(keeper, {
      program: stage.binaries.pager,
      uid: 790_001,
      vmmUid: 0,
      memoryBytes: MEMORY_BYTES,
      tracker: 'auto',
      backend: 'uffd',
      state: path.join(keeper.runDir, 'pager.state'),
      chain: { header, builds: { [id]: memory } },
    });
    return new Served(keeper, pager);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.keeper.end().catch(() => {});
    this.keeper.close();
  }
}
