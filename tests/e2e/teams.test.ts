/** Two teams on one host, made by the command line: what is one's is nothing to the other. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { AuditLine, Sandbox, TemplateInfo } from '@thaw/api';
import { Thaw } from '@thaw/sdk';
import { startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

describe('two teams', () => {
  let thaw: TestThaw;
  before(async () => {
    thaw = await startThaw();
  });
  after(() => thaw?.stop());

  const cli = (args: string[], key?: string) => thaw.cli(args, key ? { env: { THAW_API_KEY: key } } : {});
  async function done(args: string[], key?: string): Promise<string> {
    const { code, stdout, stderr } = await cli(args, key);
    assert.equal(code, 0, stderr);
    return stdout.trim();
  }

  it('see, wake, read and name nothing of each other, and go with all they have', async () => {
    const [red, blue] = [await done(['team', 'create', 'red']), await done(['team', 'create', 'blue'])];
    const create = (key: string) => done(['sandbox', 'create', '--memory', '256'], key);
    const [mine, theirs] = [await create(red), await create(blue)];
    await done(['sandbox', 'exec', mine, '--', 'sh', '-c', 'echo red > /root/colour'], red);
    await done(['sandbox', 'exec', theirs, '--', 'sh', '-c', 'echo blue > /root/colour'], blue);
    for (const [key, id] of [
      [red, mine],
      [blue, theirs],
    ] as const) {
      await done(['snapshot', 'create', id, 'ready'], key);
      await done(['sandbox', 'pause', id], key);
    }

    const sandboxes = async (key?: string): Promise<Sandbox[]> =>
      JSON.parse(await done(['sandbox', 'ls', '--json'], key));
    const snapshots = async (key?: string): Promise<TemplateInfo[]> =>
      JSON.parse(await done(['snapshot', 'ls', '--type', 'snapshot', '--json'], key));
    assert.deepEqual(
      (await sandboxes(blue)).map(({ id }) => id),
      [theirs],
    );
    assert.deepEqual([await sandboxes(), await snapshots()], [[], []]);
    const [ofRed] = await snapshots(red);
    assert.equal((await snapshots(blue)).length, 1);

    for (const args of [
      ['sandbox', 'get', mine],
      ['sandbox', 'stat', mine],
      ['sandbox', 'logs', mine],
      ['sandbox', 'exec', mine, '--', 'cat', '/root/colour'],
      ['sandbox', 'ls-files', mine, '/root'],
      ['sandbox', 'cp', `${mine}:/root/colour`, '-'],
      ['sandbox', 'resume', mine],
      ['sandbox', 'pause', mine],
      ['sandbox', 'fork', mine],
      ['sandbox', 'set', mine, '--timeout', '1'],
      ['sandbox', 'rm', mine],
      ['snapshot', 'create', mine, 'stolen'],
      ['snapshot', 'rm', ofRed!.id],
      ['sandbox', 'create', '--template', ofRed!.id],
    ]) {
      for (const key of [blue, thaw.key]) {
        const { code, stdout, stderr } = await cli(args, key);
        assert.equal(stdout, '', args.join(' '));
        assert.ok(
          code !== 0 && /does not exist|not found/.test(stderr),
          `${args.join(' ')}: ${code} ${stderr}`,
        );
      }
    }
    const of = (key: string) => new Thaw({ url: thaw.url, key });
    assert.equal((await of(red).sandboxes.get(mine)).status, 'paused', 'nothing woke it');

    // The same name is another template for each, with the own files.
    for (const [key, colour] of [
      [red, 'red'],
      [blue, 'blue'],
    ] as const) {
      const id = await done(['sandbox', 'create', '--template', 'ready'], key);
      assert.equal(await done(['sandbox', 'exec', id, '--', 'cat', '/root/colour'], key), colour);
      await done(['sandbox', 'rm', id], key);
    }
    assert.equal(await done(['sandbox', 'exec', mine, '--', 'cat', '/root/colour'], red), 'red');

    const audit = async (args: string[], key?: string): Promise<AuditLine[]> =>
      JSON.parse(await done(['audit', '--json', '-n', '1000', ...args], key));
    const tried = await audit(['--target', mine, '--outcome', 'not_found'], blue);
    assert.ok(tried.some(({ verb, actor }) => verb === 'destroySandbox' && blue.startsWith(actor)));
    assert.ok(
      (await audit([], red)).every(({ actor, team }) => !blue.startsWith(actor) && team !== undefined),
    );
    const all = await audit([]);
    assert.ok(all.some(({ verb, actor }) => verb === 'addKey' && actor === 'thaw'));

    // The log outlives its control plane, of which everything is written.
    await thaw.restart();
    assert.deepEqual((await audit([])).slice(-all.length), all);

    assert.match((await cli(['team', 'rm', 'red'])).stderr, /1 sandboxes and 1 templates/);
    await done(['team', 'rm', 'red', 'blue', '--force']);
    assert.match((await cli(['sandbox', 'ls'], red)).stderr, /not valid/);
    assert.equal((await audit(['--verb', 'deleteSnapshot'])).length >= 2, true);
    assert.equal(JSON.parse(await done(['team', 'ls', '--json'])).length, 1);
  });
});
