import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { GUEST_PORT, Guest } from '../guest/guest.ts';
import type { Machine } from '../sandbox/machine.ts';
import { SandboxPaths } from '../sandbox/paths.ts';
import type { SandboxRecord } from '../sandbox/record.ts';
import { Registry } from '../sandbox/registry.ts';
import { Sandbox } from '../sandbox/sandbox.ts';
import { PLACES, readRing, type Sample, writeSample } from './ring.ts';
import { Sampler } from './sampler.ts';

const sampleOf = (atMs: number): Sample => ({
  atMs,
  cpuCount: 2,
  cpuUsedPct: 12.5,
  memUsedBytes: atMs + 1,
  memTotalBytes: 2 ** 40,
  memCacheBytes: 3,
  diskUsedBytes: 4,
  diskTotalBytes: 2 ** 41,
});

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (await holds()) return;
    await sleep(10);
  }
  throw new Error('waited in vain');
}

describe('samples', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'thaw-samples-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it('come back in the order they were written, also after the first place was used again', async () => {
    const file = path.join(folder, 'samples');
    assert.deepEqual(await readRing(file), { samples: [], next: 1 });
    for (const number of [1, 2, 3]) await writeSample(file, number, sampleOf(number * 1000));
    assert.deepEqual(await readRing(file), { samples: [1000, 2000, 3000].map(sampleOf), next: 4 });
    for (const number of [PLACES, PLACES + 1]) await writeSample(file, number, sampleOf(number * 1000));
    const { samples, next } = await readRing(file);
    assert.deepEqual(
      samples.map(({ atMs }) => atMs / 1000),
      [2, 3, PLACES, PLACES + 1],
    );
    assert.equal(next, PLACES + 2);
    assert.ok((await stat(file)).size <= PLACES * 64);
  });

  it('are fewer where the file is damaged', async () => {
    const file = path.join(folder, 'samples');
    for (const number of [1, 2]) await writeSample(file, number, sampleOf(number));
    await truncate(file, 3 * 64 - 1);
    assert.deepEqual(await readRing(file), { samples: [sampleOf(1)], next: 2 });
    await writeFile(file, Buffer.alloc(4096, 0xff));
    assert.deepEqual((await readRing(file)).samples, []);
  });
});

describe('the sampler', () => {
  const ADDRESS = '127.83.17.6';
  const LOAD = {
    ...{ ts: 1, cpu_count: 1, cpu_used_pct: 3.5, mem_total: 1000, mem_used: 10, mem_cache: 5 },
    ...{ mem_total_mib: 0, mem_used_mib: 0, disk_used: 7, disk_total: 70 },
  };
  let server: Server;
  let data: string;
  let sandbox: Sandbox;
  let guest: Guest;
  let registry: Registry;
  let asked = 0;
  let answer: (response: ServerResponse) => void;
  before(async () => {
    server = createServer((request, response) => {
      asked += 1;
      assert.deepEqual([request.url, request.headers['x-access-token']], ['/metrics', 'token']);
      answer(response);
    }).listen(GUEST_PORT, ADDRESS);
    await once(server, 'listening');
  });
  after(() => {
    server.closeAllConnections();
    server.close();
  });
  beforeEach(async () => {
    data = await mkdtemp(path.join(tmpdir(), 'thaw-sampler-'));
    guest = new Guest(ADDRESS, 'token');
    const machine = { guest, isEnding: false } as Machine;
    sandbox = new Sandbox({ id: 'sb1', lastActiveAt: 7 } as SandboxRecord, { status: 'running', machine });
    await mkdir(new SandboxPaths({ data, run: data }, 'sb1').data, { recursive: true });
    registry = new Registry();
    registry.add(sandbox);
    asked = 0;
    answer = (response) => response.end(JSON.stringify(LOAD));
  });
  const start = (): Sampler => {
    const config = { data, run: data } as ConstructorParameters<typeof Sampler>[0]['config'];
    const pace = { everyMs: 30, settleMs: 20, lookEveryMs: 5, answerMs: 200 };
    const sampler = new Sampler({ registry, config, log: pino({ level: 'silent' }) }, pace);
    sampler.begin();
    return sampler;
  };
  afterEach(async () => {
    guest.close();
    await rm(data, { recursive: true, force: true });
  });

  it('keeps what guests say, goes on after a restart, and is no use of the sandbox', async () => {
    const began = Date.now();
    {
      await using sampler = start();
      await until(async () => (await sampler.between('sb1')).length >= 3);
    }
    await using sampler = start();
    const before = (await sampler.between('sb1')).length;
    await until(async () => (await sampler.between('sb1')).length >= before + 2);
    const samples = await sampler.between('sb1');
    assert.ok(samples.every(({ atMs }, index) => atMs >= (samples[index - 1]?.atMs ?? began)));
    const { atMs: _, ...last } = samples.at(-1)!;
    assert.deepEqual(last, {
      ...{ cpuCount: 1, cpuUsedPct: 3.5, memUsedBytes: 10, memTotalBytes: 1000, memCacheBytes: 5 },
      ...{ diskUsedBytes: 7, diskTotalBytes: 70 },
    });
    assert.deepEqual(await sampler.between('sb1', 0, began - 1), []);
    assert.deepEqual((await sampler.between('sb1', samples[1]!.atMs, samples[2]!.atMs)).length, 2);
    assert.ok((await sampler.latest('sb1'))!.atMs >= samples.at(-1)!.atMs);
    assert.equal(sandbox.record.lastActiveAt, 7);
    await assert.rejects(sampler.between('sb2'), /no such sandbox/);
  });

  it('leaves alone what does not run', async () => {
    await using sampler = start();
    await until(() => asked > 0);
    sandbox.state = { status: 'paused' };
    await sleep(50);
    const before = asked;
    await sleep(150);
    assert.equal(asked, before);
    assert.ok(await sampler.latest('sb1'));
  });

  it('takes no nonsense, and a guest that hangs holds up nobody', async () => {
    await using sampler = start();
    const nonsense = [
      'x',
      '{}',
      JSON.stringify({ ...LOAD, mem_used: -1 }),
      JSON.stringify({ ...LOAD, disk_total: 1e300 }),
      JSON.stringify({ ...LOAD, cpu_used_pct: 'much' }),
      ' '.repeat(10_000),
    ];
    answer = (response) => response.end(nonsense[asked % nonsense.length]);
    await until(() => asked > 2 * nonsense.length);
    answer = (response) => response.writeHead(500).end(JSON.stringify(LOAD));
    await sleep(50);
    answer = () => {};
    const before = asked;
    await until(() => asked > before + 1);
    assert.deepEqual(await sampler.between('sb1'), []);
    assert.equal(await sampler.latest('sb1'), undefined);
    answer = (response) => response.end(JSON.stringify(LOAD));
    await until(async () => (await sampler.latest('sb1')) !== undefined);
  });

  it('writes nothing into the folder of a sandbox that ends meanwhile', async () => {
    const held: ServerResponse[] = [];
    answer = (response) => held.push(response);
    await using sampler = start();
    await until(() => held.length > 0);
    sandbox.state = { status: 'stopping' };
    for (const response of held) response.end(JSON.stringify(LOAD));
    await sleep(50);
    assert.deepEqual(await readdir(new SandboxPaths({ data, run: data }, 'sb1').data), []);
    assert.equal(await sampler.latest('sb1'), undefined);
  });
});
