/**
 * A release, unpacked, installed, upgraded under a running sandbox, and removed again: the same steps as on a machine
 * of one's own, in a folder in the place of `/` and without systemd.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import {
  appendFile,
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { InstallPaths } from '../../packages/cli/src/install/paths.ts';
import { sandboxesUnitText, unitText } from '../../packages/cli/src/install/units.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const ROOT = path.resolve(import.meta.dirname, '../..');
const exec = promisify(execFile);

interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

describe('an installation', () => {
  let folder: string;
  /** In the place of `/`. */
  let root: string;
  /** The unpacked release, and a later version. */
  let first: string;
  let second: string;

  before(async () => {
    // On a disk: the images are large.
    folder = await mkdtemp('/var/tmp/thaw-install-');
    await chmod(folder, 0o755);
    root = path.join(folder, 'root');
    await mkdir(root);
    const version = process.env.THAW_VERSION_DIR!;
    const pack = [path.join(ROOT, 'scripts/release.ts'), version, '--out', folder, '--level', '1'];
    const { stdout } = await exec(process.execPath, pack, { cwd: ROOT });
    const archive = stdout.trim();
    await exec('sha256sum', ['--check', `${path.basename(archive)}.sha256`], { cwd: folder });
    const unpacked = path.join(folder, 'unpacked');
    await mkdir(unpacked);
    await exec('tar', ['-xzf', archive, '-C', unpacked]);
    first = path.join(unpacked, path.basename(archive, '.tar.gz'));
    second = await laterVersion(first, path.join(folder, 'later'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  /** Runs `thaw …` of a version's folder on the system in `root`. */
  async function thaw(version: string, ...args: string[]): Promise<Result> {
    const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root' };
    const place = args[0] === 'doctor' ? [] : ['--root', root];
    return exec(path.join(version, 'bin/thaw'), [...args, ...place], { env }).then(
      ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
      (error: Result) => error,
    );
  }

  const inRoot = (file: string) => path.join(root, file);

  test('a release runs from where it is unpacked', async () => {
    const { code, stdout } = await thaw(first, 'doctor', '--json');
    assert.equal(code, 0, stdout);
    process.env.THAW_VERSION_DIR = first;
    const running = await startThaw();
    const { id } = await running.sdk.sandboxes.create({ memory_mb: 256 });
    assert.equal(await running.sh(id, 'echo $((6*7))'), '42\n');
    await running.stop();
  });

  test('install puts the version, units, settings and a link; again changes nothing', async () => {
    const { code, stdout, stderr } = await thaw(first, 'install', '--json');
    assert.equal(code, 0, stderr);
    const done = JSON.parse(stdout) as { id: string; version: string; started: boolean };
    assert.equal(done.started, false);
    assert.equal(await readlink(inRoot('opt/thaw/current')), `versions/${done.id}`);
    assert.equal(await readlink(inRoot('usr/local/bin/thaw')), '/opt/thaw/current/bin/thaw');
    assert.equal((await lstat(inRoot('etc/thaw/thaw.env'))).mode & 0o777, 0o600);
    const unit = await readFile(inRoot('etc/systemd/system/thaw.service'), 'utf8');
    for (const line of ['KillMode=process', 'Delegate=yes', 'ExecStart=/opt/thaw/current/bin/thaw up'])
      assert.ok(unit.includes(`\n${line}\n`), unit);
    assert.match(
      await readFile(inRoot('etc/systemd/system/thaw-sandboxes.service'), 'utf8'),
      /KillMode=process[\s\S]*Delegate=yes/,
    );
    const version = await exec(inRoot('opt/thaw/current/bin/thaw'), ['--version']);
    assert.equal(version.stdout.trim(), `${done.version} (${done.id})`);

    const before = await tree(root);
    await appendFile(inRoot('etc/thaw/thaw.env'), 'THAW_SLOT_POOL=2\n');
    assert.equal((await thaw(first, 'install')).code, 0);
    assert.deepEqual(await tree(root), before);
    assert.match(await readFile(inRoot('etc/thaw/thaw.env'), 'utf8'), /THAW_SLOT_POOL=2/);

    const other = await thaw(second, 'install');
    assert.equal(other.code, 1);
    assert.match(other.stderr, /already: thaw upgrade/);
  });

  test('systemd takes the units', async (t) => {
    if (!existsSync('/usr/bin/systemd-analyze')) return t.skip('no systemd-analyze on this machine');
    const units = path.join(folder, 'units');
    await mkdir(units, { recursive: true });
    // As they would be where the installed program is what they name.
    const paths = new InstallPaths({ root: '', prefix: inRoot('opt/thaw') });
    await writeFile(path.join(units, 'thaw.service'), unitText(paths));
    await writeFile(path.join(units, 'thaw-sandboxes.service'), sandboxesUnitText());
    const files = ['thaw.service', 'thaw-sandboxes.service'].map((name) => path.join(units, name));
    const { stderr } = await exec('systemd-analyze', ['verify', '--man=no', ...files], {
      env: { ...process.env, SYSTEMD_UNIT_PATH: `${units}:` },
    });
    assert.doesNotMatch(stderr, /thaw/);
  });

  test('a damaged release is not installed', async () => {
    const victim = path.join(first, 'packages/cli/src/print.ts');
    const text = await readFile(victim, 'utf8');
    const elsewhere = path.join(folder, 'elsewhere');
    await appendFile(victim, '// changed\n');
    try {
      const env = { PATH: '/usr/bin:/bin' };
      const install = exec(path.join(first, 'bin/thaw'), ['install', '--root', elsewhere], { env });
      await assert.rejects(install, /damaged: packages\/cli\/src\/print\.ts/);
      assert.deepEqual(await readdir(path.join(elsewhere, 'opt/thaw/versions')).catch(() => []), []);
    } finally {
      await writeFile(victim, text);
    }
  });

  describe('that runs', () => {
    let running: TestThaw;
    let sandbox: string;

    before(async () => {
      process.env.THAW_VERSION_DIR = inRoot('opt/thaw/current');
      running = await startThaw();
      // The folders that the installation knows are the ones of the test's Thaw.
      await mkdir(inRoot('var/lib'), { recursive: true });
      await mkdir(inRoot('run'), { recursive: true });
      await symlink(running.data, inRoot('var/lib/thaw'));
      await symlink(running.run, inRoot('run/thaw'));
      sandbox = (await running.sdk.sandboxes.create({ memory_mb: 256 })).id;
      await running.sh(
        sandbox,
        '(i=0; while :; do i=$((i+1)); echo $i > /root/count; sleep 0.1; done) >/dev/null 2>&1 &',
      );
    });
    after(() => running.end());

    const count = async () => Number(await running.sh(sandbox, 'cat /root/count'));

    test('a running sandbox goes on counting across an upgrade', async () => {
      const before = await eventually(async () => {
        const now = await count();
        assert.ok(now > 3);
        return now;
      });
      const daemons = await running.agentPids();
      const started = (await running.sdk.sandboxes.get(sandbox)).status;
      assert.equal(started, 'running');
      const { code, stdout, stderr } = await thaw(second, 'upgrade', '--json');
      assert.equal(code, 0, `${stderr}\n${running.log()}`);
      const done = JSON.parse(stdout) as { id: string; restarted: boolean };
      assert.equal(done.restarted, true);
      assert.equal(await readlink(inRoot('opt/thaw/current')), `versions/${done.id}`);

      const now = await running.agentPids();
      assert.equal(now.up, daemons.up);
      for (const name of ['agent', 'plane'] as const) {
        assert.notEqual(now[name], daemons[name]);
        const program = await readlink(`/proc/${now[name]}/exe`);
        assert.equal(program, inRoot(`opt/thaw/versions/${done.id}/bin/node`));
      }
      // The same URL and key as before.
      await eventually(async () => assert.ok((await count()) > before));
      const after = await running.sdk.sandboxes.get(sandbox);
      assert.equal(after.status, 'running');
      assert.equal((await readdir(inRoot('opt/thaw/versions'))).length, 2);
    });

    test('uninstall refuses while a sandbox runs, and pauses it when forced', async () => {
      const refused = await thaw(second, 'uninstall');
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /1 sandbox runs: .*--force/);
      assert.equal((await running.sdk.sandboxes.get(sandbox)).status, 'running');

      const { code, stdout, stderr } = await thaw(second, 'uninstall', '--force', '--json');
      assert.equal(code, 0, `${stderr}\n${running.log()}`);
      const { kept } = JSON.parse(stdout) as { kept: string[] };
      assert.deepEqual(kept, [inRoot('var/lib/thaw'), inRoot('etc/thaw/thaw.env')]);
      assert.deepEqual(await running.leftovers(), []);
      for (const file of ['opt/thaw', 'usr/local/bin/thaw', 'etc/systemd/system/thaw.service'])
        assert.equal(existsSync(inRoot(file)), false, file);
    });

    test('installed again, it finds the paused sandbox; a purge removes that too', async () => {
      assert.equal((await thaw(second, 'install', '--no-systemd')).code, 0);
      assert.equal(existsSync(inRoot('etc/systemd/system/thaw.service')), false);
      await running.start();
      // The host paused it; the row follows.
      await eventually(async () => assert.equal((await running.sdk.sandboxes.get(sandbox)).status, 'paused'));
      await running.sdk.sandboxes.resume(sandbox);
      const before = await count();
      await eventually(async () => assert.ok((await count()) > before));
      await running.sdk.sandboxes.pause(sandbox);

      const { code, stderr } = await thaw(second, 'uninstall', '--purge');
      assert.equal(code, 0, `${stderr}\n${running.log()}`);
      assert.deepEqual(await readdir(running.data), []);
      assert.equal(existsSync(inRoot('etc/thaw')), false);
      assert.deepEqual(await running.leftovers(), []);
    });
  });
});

/** A copy of a version with another content, and so another id. */
async function laterVersion(version: string, to: string): Promise<string> {
  await exec('cp', ['-a', '--reflink=auto', version, to]);
  await rm(path.join(to, 'SHA256SUMS'));
  await appendFile(path.join(to, 'packages/cli/src/main.ts'), '// a later version\n');
  const file = path.join(to, 'version.json');
  const { id } = JSON.parse(await readFile(file, 'utf8')) as { id: string };
  const later = [...id].map((digit) => (15 - Number.parseInt(digit, 16)).toString(16)).join('');
  await writeFile(file, JSON.stringify({ version: '0.2.0', id: later }));
  return to;
}

/** Everything in a folder but what a version compiles while it runs. */
async function tree(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true });
  return entries.filter((name) => !/\/cache(\/|$)/.test(name)).sort();
}
