/** The host agent's client against a real keeper. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { access, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Keeper } from '../../../packages/host-agent/src/keeper/keeper.ts';
import { Stage } from './stage.ts';

const UID = 799_999;

function child(...argv: string[]) {
  return { argv, env: {}, uid: UID, gid: UID, root: 'host' as const };
}

async function left(pid: number): Promise<void> {
  while (
    await access(`/proc/${pid}`).then(
      () => true,
      () => false,
    )
  )
    await sleep(5);
}

describe('a keeper', () => {
  it('starts children, tells their ends and leaves nothing', async () => {
    await using stage = await Stage.open();
    const runDir = path.join(stage.dir, 'run');
    const keeper = await Keeper.start(stage.binaries.keeper, runDir);
    const gone = keeper.gone('vmm');
    const { pid } = await keeper.spawn('vmm', child('/bin/sh', '-c', 'echo words; exit 3'));
    assert.deepEqual(await gone, { code: 3, signal: null });
    assert.equal(await keeper.logs('vmm'), 'words\n');
    assert.deepEqual(await keeper.wait('vmm', 1000), { code: 3, signal: null });
    const status = await keeper.status();
    assert.equal(status.roles.vmm?.pid, pid);
    assert.equal((await keeper.run(child('/bin/echo', 'hi'), 5000)).output, 'hi\n');
    await assert.rejects(keeper.run(child('/bin/sleep', '100'), 20), { kind: 'timeout' });
    await assert.rejects(keeper.ask('pager', { op: 'x' }, [], 1000), {
      kind: 'internal',
      reason: 'not_found',
    });
    await keeper.end();
    await assert.rejects(access(path.join(runDir, 'keeper.sock')), { code: 'ENOENT' });
    // Hanging up is one of the last things that a process does, being waited for by its parent the very last.
    await left(status.pid);
    await assert.rejects(keeper.status(), { kind: 'unavailable' });
  });

  it('is found again, and only one has a folder', async () => {
    await using stage = await Stage.open();
    const runDir = path.join(stage.dir, 'run');
    const first = await Keeper.start(stage.binaries.keeper, runDir);
    await first.spawn('vmm', child('/bin/sleep', '1000'));
    first.close();
    await assert.rejects(first.status(), { kind: 'unavailable' });
    await assert.rejects(Keeper.start(stage.binaries.keeper, runDir), { kind: 'internal' });
    const second = await Keeper.connect(runDir);
    assert.equal((await second.status()).roles.vmm?.running, true);
    await second.end();
  });

  it('rejects what is open when it dies', async () => {
    await using stage = await Stage.open();
    const keeper = await Keeper.start(stage.binaries.keeper, path.join(stage.dir, 'run'));
    await keeper.spawn('vmm', child('/bin/sleep', '1000'));
    const gone = keeper.gone('vmm');
    const waiting = keeper.wait('vmm', 60_000);
    const { pid } = await keeper.status();
    process.kill(pid, 'SIGKILL');
    await assert.rejects(waiting, { kind: 'unavailable' });
    assert.deepEqual(await gone, { code: null, signal: null });
  });

  it('that makes no sense is hung up on', async () => {
    await using stage = await Stage.open();
    const server = net.createServer((socket) => socket.on('error', () => {}).end('nonsense\n'));
    server.listen(path.join(stage.dir, 'keeper.sock'));
    await once(server, 'listening');
    const keeper = await Keeper.connect(stage.dir);
    await assert.rejects(keeper.status(), { kind: 'unavailable' });
    server.close();
    await writeFile(path.join(stage.dir, 'program'), '#!/bin/sh\necho broken; exit 4\n', { mode: 0o755 });
    const failed = Keeper.start(path.join(stage.dir, 'program'), path.join(stage.dir, 'other'));
    await assert.rejects(failed, (error: Error) => String(error.cause).includes('broken'));
  });
});
