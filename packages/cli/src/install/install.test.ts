import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Config } from '../config.ts';
import type { Progress } from '../progress.ts';
import { uninstall } from '../uninstall/uninstall.ts';
import { upgrade } from '../upgrade/upgrade.ts';
import { readSettings, writeSettings } from './files.ts';
import { type InstallOptions, install } from './install.ts';
import { InstallPaths, versionFile } from './paths.ts';
import { findRecord } from './record.ts';
import { placeVersion, prune } from './version.ts';

const FIRST = 'aaaaaaaaaaaa';
const SECOND = 'bbbbbbbbbbbb';
const quiet: Progress = { step: (_, action) => action(), say: () => {} };

let folder: string;
let root: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'thaw-install-'));
  root = path.join(folder, 'root');
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** A version's folder with next to nothing in it. */
async function makeVersion(id: string): Promise<string> {
  const version = path.join(folder, `unpacked-${id}`);
  await mkdir(path.join(version, 'bin'), { recursive: true });
  await mkdir(path.join(version, 'cache'));
  await writeFile(path.join(version, 'bin/thaw'), `#!/bin/sh\n# ${id}\n`, { mode: 0o755 });
  await symlink('thaw', path.join(version, 'bin/link'));
  await writeFile(versionFile(version), JSON.stringify({ version: '1.0.0', id }));
  return version;
}

function options(version: string, env: NodeJS.ProcessEnv = {}): InstallOptions {
  const config = { data: '/var/lib/thaw', run: '/run/thaw', version } as Config;
  return { config, env, progress: quiet, prefix: '/opt/thaw', root, systemd: true };
}

test('installs below another root, beside an upgrade, and removes all of it', async () => {
  const first = await makeVersion(FIRST);
  const done = await install(options(first));
  assert.equal(done.started, false);
  assert.deepEqual(done.problems, []);
  const at = (file: string) => path.join(root, file);
  assert.equal(await readlink(at('opt/thaw/current')), `versions/${FIRST}`);
  assert.deepEqual((await readdir(at(`opt/thaw/versions/${FIRST}`))).sort(), ['bin', 'version.json']);
  assert.equal(await readlink(at(`opt/thaw/versions/${FIRST}/bin/link`)), 'thaw');
  await install(options(first));

  const second = await makeVersion(SECOND);
  await assert.rejects(install(options(second)), /thaw upgrade/);
  assert.equal((await upgrade(options(second))).restarted, false);
  assert.equal(await readlink(at('opt/thaw/current')), `versions/${SECOND}`);
  assert.deepEqual((await readdir(at('opt/thaw/versions'))).sort(), [FIRST, SECOND]);

  await mkdir(at('var/lib/thaw/builds'), { recursive: true });
  await writeFile(at('opt/thaw/of-somebody-else'), '');
  const removal = { progress: quiet, prefix: '/opt/thaw', root, force: false };
  const { kept } = await uninstall({ ...removal, purge: false });
  assert.deepEqual(kept, [at('var/lib/thaw'), at('etc/thaw/thaw.env')]);
  assert.deepEqual(await readdir(at('opt/thaw')), ['of-somebody-else']);
  assert.deepEqual(await readdir(at('etc/systemd/system')), []);
  await assert.rejects(uninstall({ ...removal, purge: false }), /not installed/);

  await install(options(first));
  await writeFile(at('var/lib/thaw/not-of-thaw'), '');
  await uninstall({ ...removal, purge: true });
  assert.deepEqual(await readdir(at('var/lib/thaw')), ['not-of-thaw']);
  assert.equal(existsSync(at('etc/thaw')), false);
});

test('refuses what can not be installed, and where', async () => {
  const first = await makeVersion(FIRST);
  const wrong = { ...options(first), prefix: 'relative' };
  await assert.rejects(install(wrong), /--prefix is an absolute path/);
  await assert.rejects(install({ ...options(first), prefix: '/opt/../etc' }), /--prefix is an absolute path/);
  await assert.rejects(install(options(path.join(folder, 'nothing'))), /is no version/);
  await assert.rejects(upgrade(options(first)), /not installed/);
  const paths = new InstallPaths({ root, prefix: '/opt/thaw' });
  assert.equal(await findRecord(paths), undefined);
  await mkdir(path.join(root, 'opt/thaw'), { recursive: true });
  await writeFile(paths.at(paths.record), '{');
  await assert.rejects(upgrade(options(first)), /is damaged/);
});

test('settings are read as a shell reads them', async () => {
  const paths = new InstallPaths({ root, prefix: '/opt/thaw' });
  const settings = {
    THAW_LISTEN: '[::1]:80',
    DATABASE_URL: 'postgres://u:a b$"\\`@h/d',
  };
  assert.equal(await writeSettings(paths, settings), true);
  assert.equal(await writeSettings(paths, {}), false);
  assert.deepEqual(await readSettings(paths, false), settings);
  assert.match((await readSettings(paths, true)).THAW_CGROUP!, /thaw-sandboxes/);
  const script = `set -a; . ${paths.at(paths.settings)}; printf '%s\\n%s' "$THAW_LISTEN" "$DATABASE_URL"`;
  const read = execFileSync('sh', ['-c', script], { encoding: 'utf8' });
  assert.deepEqual(read.split('\n'), Object.values(settings));
});

test('old versions go, but none that is current or in use', async () => {
  const versions = path.join(folder, 'prefix/versions');
  const ids = ['1', '2', '3', '4', '5', '6'].map((digit) => digit.repeat(12));
  for (const [age, id] of ids.entries()) {
    const placed = await placeVersion(await makeVersion(id), versions, id);
    const at = new Date(2020, 0, 10 - age);
    await utimes(placed, at, at);
  }
  await symlink(`versions/${ids[4]}`, path.join(folder, 'prefix/current'));
  const removed = await prune(versions, [path.join(versions, ids[5]!)]);
  assert.deepEqual(removed, [path.join(versions, ids[3]!)]);
  assert.equal(await readFile(path.join(versions, ids[4]!, 'bin/thaw'), 'utf8'), `#!/bin/sh\n# ${ids[4]}\n`);
});
