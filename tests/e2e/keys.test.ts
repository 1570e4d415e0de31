/** Keys with quotas as an operator uses them, and a host that refuses what does not fit. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ThawError } from '@thaw/api';
import { Thaw } from '@thaw/sdk';
import { startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

describe('keys, quotas and room', () => {
  let thaw: TestThaw;
  before(async () => {
    thaw = await startThaw({ env: { THAW_MEMORY_MB: '1024' } });
  });
  after(() => thaw?.stop());

  async function cli(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await thaw.cli(args);
    assert.equal(code, 0, stderr);
    return stdout.trim();
  }

  it('are made, listed, limited and revoked by the command line', async () => {
    const key = await cli('key', 'create', 'ci', '--sandboxes', '1', '--memory', '1024');
    assert.match(key, /^e2b_[0-9a-f]{40}$/);
    const limited = new Thaw({ url: thaw.url, key });
    const first = await limited.sandboxes.create({ memory_mb: 256 });
    await assert.rejects(limited.sandboxes.create({ memory_mb: 256 }), (error: ThawError) => {
      assert.equal(error.status, 429);
      assert.match(error.message, /key ci.*sandboxes: the most is 1, this would make 2/);
      return true;
    });
    assert.equal(await thaw.sh(first, 'echo alive'), 'alive\n');
    const listed = await cli('key', 'ls');
    assert.match(listed, /ci +e2b_[0-9a-f]{4}… +- +1 of 1 +1 +256 of 1024 +4096/);
    const [, own] = JSON.parse(await cli('key', 'ls', '--json'));
    assert.match(await cli('key', 'quota', own.id, '--sandboxes', 'none', '--vcpus', '2'), /vcpus +1 of 2/);
    const second = await limited.sandboxes.create({ memory_mb: 256 });
    for (const { id } of [first, second]) await limited.sandboxes.delete(id);
    assert.match(await cli('key', 'quota', 'team', '--disk', '100000'), /disk_mb +0 of 100000/);
    await cli('key', 'quota', 'team', '--disk', 'none');
    await cli('key', 'revoke', own.id);
    await assert.rejects(limited.sandboxes.create(), { kind: 'unauthenticated' });
    const last = await thaw.cli(['key', 'revoke', JSON.parse(await cli('key', 'ls', '--json'))[0].id]);
    assert.equal(last.code, 1);
    assert.match(last.stderr, /last one that may administrate/);
    for (const wrong of [
      ['create'],
      ['create', 'x', '--sandboxes', '-1'],
      ['quota', 'team', '--vcpus', 'many'],
    ])
      assert.equal((await thaw.cli(['key', ...wrong])).code, 2, wrong.join(' '));
  });

  it('end where the memory of the host does', async () => {
    const { sandboxes } = thaw.sdk;
    const [one, two] = [await sandboxes.create(), await sandboxes.create()];
    const full = (error: ThawError) => {
      assert.ok(error instanceof ThawError);
      assert.equal(error.status, 429);
      assert.match(
        error.message,
        /guests may have 1024 MiB together, and with this sandbox they would have 1536/,
      );
      return true;
    };
    const before = (await Array.fromAsync(sandboxes.list())).length;
    await assert.rejects(sandboxes.create(), full);
    assert.equal((await Array.fromAsync(sandboxes.list())).length, before);
    await sandboxes.pause(one.id);
    const three = await sandboxes.create();
    await assert.rejects(sandboxes.resume(one.id), full);
    assert.equal((await sandboxes.get(one.id)).status, 'paused');
    await sandboxes.delete(two.id);
    assert.equal((await sandboxes.resume(one.id)).status, 'running');
    assert.equal(await thaw.sh(one, 'echo alive'), 'alive\n');
    await sandboxes.delete(three.id);
    await assert.rejects(sandboxes.create({ memory_mb: 2048 }), { kind: 'invalid_request' });
  });
});
