/** Sandboxes whose time is over, those that boot from their disk alone, and a host whose disk is too full for more. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { SandboxStatus } from '@thaw/api';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

describe('a sandbox whose time is over', () => {
  let thaw: TestThaw;
  before(async () => {
    thaw = await startThaw({ env: { THAW_CLOCK_MS: '200', THAW_RECONCILE_MS: '500' } });
  });
  after(() => thaw?.stop());

  const becomes = (id: string, status: SandboxStatus) =>
    eventually(async () => assert.equal((await thaw.sdk.sandboxes.get(id)).status, status), 60_000);

  it('is paused with all that it holds, and wakes for the next command', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ timeout_sec: 2 });
    await thaw.sh(id, 'echo memory > /dev/shm/kept');
    // An open stream is no idleness, however little it says.
    const stream = thaw.sdk.sandboxes.execStream(id, { cmd: 'sleep', args: ['4'] });
    for await (const message of stream) assert.ok(message);
    assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'running');
    await becomes(id, 'paused');
    assert.equal(await thaw.sh(id, 'cat /dev/shm/kept'), 'memory\n');
    assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'running');
    await thaw.sdk.sandboxes.delete(id);
  });

  it('is destroyed if that was asked for, also by a control plane that was started meanwhile', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ timeout_sec: 3, on_timeout: 'kill' });
    await thaw.restart();
    await becomes(id, 'stopped');
    assert.equal((await thaw.api('POST', `/v1/sandboxes/${id}/exec`, { cmd: 'true' })).status, 409);
  });

  it('boots from its disk alone when its memory is not wanted', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ timeout_sec: 0 });
    const bootId = () => thaw.sh(id, 'cat /proc/sys/kernel/random/boot_id');
    const first = await bootId();
    await thaw.sh(id, 'echo disk > /root/kept; echo memory > /dev/shm/kept');
    const paused = await thaw.sdk.sandboxes.pause(id);
    const cold = await thaw.sdk.sandboxes.resume(id, { memory: false });
    assert.equal(cold.status, 'running');
    assert.equal(cold.rolled_back_to, undefined);
    const second = await bootId();
    assert.notEqual(second, first);
    assert.equal(await thaw.sh(id, 'cat /root/kept; ls /dev/shm'), 'disk\n');
    await thaw.sh(id, 'echo more >> /root/kept; echo again > /dev/shm/kept');
    const again = await thaw.sdk.sandboxes.pause(id);
    // Memory begins a chain of its own; the disk goes on.
    assert.equal(again.build?.generation, 0);
    assert.notEqual(again.build?.id, paused.build?.id);
    await thaw.sdk.sandboxes.resume(id);
    assert.equal(await bootId(), second);
    assert.equal(await thaw.sh(id, 'cat /root/kept /dev/shm/kept'), 'disk\nmore\nagain\n');
    const { pids } = await thaw.sdk.sandboxes.stats(id);
    process.kill(pids.vmm!, 'SIGKILL');
    await becomes(id, 'error');
    const back = await thaw.sdk.sandboxes.resume(id, { memory: false });
    assert.equal(back.rolled_back_to, again.build?.id);
    assert.equal(await thaw.sh(id, 'cat /root/kept; ls /dev/shm'), 'disk\nmore\n');
    await thaw.sdk.sandboxes.delete(id);
  });

  it('can boot the disk of its template when nothing of it was ever sealed', async () => {
    const { id } = await thaw.sdk.sandboxes.create({ timeout_sec: 0 });
    const { pids } = await thaw.sdk.sandboxes.stats(id);
    process.kill(pids.vmm!, 'SIGKILL');
    await becomes(id, 'error');
    const refused = await thaw.api('POST', `/v1/sandboxes/${id}/resume`);
    assert.deepEqual([refused.status, refused.body.error.code], [409, 'invalid_state']);
    const back = await thaw.sdk.sandboxes.resume(id, { memory: false });
    assert.match(back.rolled_back_to ?? '', /^[0-9a-f-]{36}$/);
    assert.equal(await thaw.sh(id, 'echo alive'), 'alive\n');
    await thaw.sdk.sandboxes.delete(id);
  });
});

describe('a host whose disk is nearly full', () => {
  let thaw: TestThaw;
  before(async () => {
    // More than any disk has: as if it were full.
    thaw = await startThaw({ env: { THAW_DISK_RESERVE_MB: String(2 ** 40) } });
  });
  after(() => thaw?.stop());

  it('refuses new sandboxes before a pause could fail', async () => {
    const refused = await thaw.api('POST', '/v1/sandboxes', {});
    assert.deepEqual([refused.status, refused.body.error.code], [429, 'exhausted']);
    assert.match(refused.body.error.message, /disk of this host is too full: \d+ MiB are free/);
    assert.deepEqual(await Array.fromAsync(thaw.sdk.sandboxes.list()), []);
  });
});
