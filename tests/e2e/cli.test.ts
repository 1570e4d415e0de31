/** The command line as somebody at a terminal or a script uses it. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Sandbox } from '@thaw/api';
import { startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

describe('thaw', () => {
  let thaw: TestThaw;
  let folder: string;
  let id: string;
  before(async () => {
    thaw = await startThaw();
    folder = await mkdtemp('/tmp/tw-cli-');
  });
  after(async () => {
    await rm(folder, { recursive: true, force: true });
    await thaw?.stop();
  });

  /** Standard output of a command that succeeds and says nothing else. */
  async function ok(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await thaw.cli(args);
    assert.deepEqual([code, stderr], [0, ''], args.join(' '));
    return stdout;
  }

  it('creates, lists, shows', async () => {
    id = (
      await ok('sandbox', 'create', '-m', 'who=me', '-e', 'A=b', '--memory', '256', '--no-auto-resume')
    ).trim();
    assert.match(id, /^sb[a-z0-9]{20}$/);
    const lines = (await ok('sandbox', 'ls')).trimEnd().split('\n');
    assert.match(lines[0]!, /^ID +STATUS +TEMPLATE +VCPUS +MEMORY +AGE$/);
    assert.match(lines[1]!, new RegExp(`^${id} +running +minimal +1 +256 MiB`));
    const [listed] = JSON.parse(await ok('sandbox', 'ls', '--json', '-m', 'who=me')) as Sandbox[];
    assert.deepEqual(listed, JSON.parse(await ok('sandbox', 'get', id, '--json')));
    assert.equal(await ok('sandbox', 'ls', '--json', '-m', 'who=you'), '[]\n');
    assert.match(await ok('sandbox', 'get', id), /^status +running$/m);
    assert.ok(JSON.parse(await ok('sandbox', 'stat', id, '--json')).pids.vmm > 0);
  });

  it("has a command's output, input and exit code", async () => {
    const failed = await thaw.cli(['sandbox', 'exec', id, 'sh', '-c', 'echo $A; echo e >&2; exit 9']);
    assert.deepEqual([failed.code, failed.stdout, failed.stderr], [9, 'b\n', 'e\n']);
    assert.equal((await thaw.cli(['sandbox', 'exec', id, '--', 'no-such-command'])).code, 127);
    const bytes = randomBytes(MIB);
    const through = await thaw.cli(['sandbox', 'exec', '-i', id, 'cat'], { input: bytes });
    assert.equal(through.code, 0);
    assert.ok(through.bytes.equals(bytes));
    const json = await ok(
      'sandbox',
      'exec',
      '--json',
      '-w',
      '/tmp',
      '-u',
      'user',
      id,
      'sh',
      '-c',
      'pwd; id -un',
    );
    const expected = {
      sandbox_id: id,
      cmd: 'sh',
      stdout: '/tmp\nuser\n',
      stderr: '',
      encoding: 'utf-8',
      exit_code: 0,
    };
    assert.deepEqual(JSON.parse(json), expected);
    const late = await thaw.cli(['sandbox', 'exec', '--timeout', '1', id, 'sleep', '100']);
    assert.equal(late.code, 1);
    assert.match(late.stderr, /^thaw: .*(timeout|longer)/);
  });

  it('copies files both ways, also through a pipe', async () => {
    const bytes = randomBytes(2 * MIB);
    const local = path.join(folder, 'local');
    await writeFile(local, bytes);
    await ok('sandbox', 'cp', local, `${id}:/root/there`);
    await ok('sandbox', 'cp', `${id}:/root/there`, path.join(folder, 'back'));
    assert.ok((await readFile(path.join(folder, 'back'))).equals(bytes));
    const out = await thaw.cli(['sandbox', 'cp', `${id}:/root/there`, '-']);
    assert.ok(out.code === 0 && out.bytes.equals(bytes));
    const slow = await thaw.cli(['sandbox', 'cp', `${id}:/root/there`, '-'], { readEveryMs: 5 });
    assert.deepEqual([slow.code, slow.bytes.length], [0, bytes.length], 'a slow reader gets all of it');
    const into = await thaw.cli(['sandbox', 'cp', '-', `${id}:/root/piped`], { input: bytes });
    assert.equal(into.code, 0);
    assert.equal(await thaw.sh(id, 'cmp /root/there /root/piped'), '');
    const missing = await thaw.cli(['sandbox', 'cp', `${id}:/no/such`, path.join(folder, 'none')]);
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /^thaw: /);
    assert.deepEqual((await readdir(folder)).toSorted(), ['back', 'local']);
  });

  it('pauses, resumes, snapshots, spawns', async () => {
    await thaw.sh(id, 'echo kept > /root/kept');
    await ok('sandbox', 'pause', id);
    assert.match(await ok('sandbox', 'get', id), /^status +paused$/m);
    const refused = await thaw.cli(['sandbox', 'exec', id, 'true']);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^thaw: .*paused/);
    assert.equal(JSON.parse(await ok('sandbox', 'resume', '--json', id)).status, 'running');
    assert.equal(await ok('snapshot', 'create', id, 'mine'), 'mine\n');
    const again = await thaw.cli(['snapshot', 'create', '--json', id, 'mine']);
    assert.equal(again.code, 1);
    assert.equal(JSON.parse(again.stderr).error.code, 'already_exists');
    await ok('snapshot', 'create', '--overwrite', id, 'mine');
    assert.match(await ok('snapshot', 'ls', '--type', 'snapshot'), /^mine +snapshot +256 MiB/m);
    assert.match(await ok('snapshot', 'ls', '--type', 'base'), /^minimal +base/m);
    const spawn = (await ok('sandbox', 'create', '-t', 'mine')).trim();
    assert.equal(await ok('sandbox', 'exec', spawn, 'cat', '/root/kept'), 'kept\n');
    await ok('sandbox', 'rm', id, spawn);
    await ok('snapshot', 'rm', 'mine');
    assert.equal(await ok('sandbox', 'ls', '--json'), '[]\n');
    assert.equal(JSON.parse(await ok('snapshot', 'ls', '--json', '--type', 'snapshot')).length, 0);
  });

  it('measures, and leaves nothing of it', async () => {
    const { rounds, isolation, figures } = JSON.parse(await ok('bench', '--rounds', '1', '--json'));
    assert.equal(rounds, 1);
    assert.match(isolation, /^(hardware-vm|emulated)$/);
    const median = (name: string): number =>
      figures.find((figure: { name: string }) => figure.name === name)?.median;
    for (const name of ['create', 'resume', 'create from a snapshot', 'later pause, VM stands still'])
      assert.ok(median(name) > 0, `${name}: ${JSON.stringify(figures)}`);
    assert.ok(median('later pause, stored') < median('first pause, stored'));
    assert.equal(await ok('sandbox', 'ls', '--json'), '[]\n');
    assert.equal(JSON.parse(await ok('snapshot', 'ls', '--json', '--type', 'snapshot')).length, 0);
    assert.equal((await thaw.cli(['bench', '--rounds', '0'])).code, 1);
  });

  it('says what is wrong, by exit code and in one line', async () => {
    for (const args of [
      ['sandbox', 'create', '--vcpus', 'many'],
      ['sandbox', 'nonsense'],
      ['sandbox', 'exec'],
    ])
      assert.equal((await thaw.cli(args)).code, 2, args.join(' '));
    const unknown = await thaw.cli(['sandbox', 'pause', 'sbaaaaaaaaaaaaaaaaaaaa']);
    assert.equal(unknown.code, 1);
    assert.equal(unknown.stderr, 'thaw: sandbox sbaaaaaaaaaaaaaaaaaaaa does not exist\n');
    const away = await thaw.cli(['sandbox', 'ls'], { env: { THAW_URL: 'http://127.0.0.1:1' } });
    assert.equal(away.code, 1);
    const stranger = await thaw.cli(['sandbox', 'ls', '--json'], { env: { THAW_API_KEY: 'e2b_no' } });
    assert.equal(JSON.parse(stranger.stderr).error.code, 'unauthenticated');
    const none = await thaw.cli(['sandbox', 'create', '--json', '-t', 'no-such']);
    assert.equal(JSON.parse(none.stderr).error.code, 'not_found');
    assert.match(await ok('--help'), /Exit codes/);
  });
});

const MIB = 2 ** 20;
