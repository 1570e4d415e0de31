/** `thaw uninstall`: removes what `thaw install` made; data stays unless it is to be purged. */
import { readdir, readlink, rm, rmdir } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import { InstallPaths, SANDBOXES_UNIT, UNIT } from '../install/paths.ts';
import { type InstallRecord, readRecord } from '../install/record.ts';
import { systemctl, systemdRuns } from '../install/systemd.ts';
import { removeUser } from '../install/user.ts';
import { exists } from '../install/version.ts';
import type { Progress } from '../progress.ts';
import { findRunning, stopRunning } from '../up/running.ts';
import { countSandboxes, endVms, pauseSandboxes } from './sandboxes.ts';

export interface UninstallOptions {
  progress: Progress;
  prefix: string;
  root: string;
  /** Removes data, settings and users too. */
  purge: boolean;
  /** Pauses running sandboxes, and ends those that can't be paused. */
  force: boolean;
}

const STOP_TIMEOUT_MS = 200_000;
/** What is in a data folder, and what a copy that was cut short leaves there. */
const UNFINISHED = /^\.(restore|backup-.*)$/;
const DATA_NAMES = [
  'boot',
  'boots',
  'builds',
  'claim.json',
  'identity',
  'key',
  'postgres',
  'postgres.new',
  'sandboxes',
  'spares',
  'templates',
];

/** What is left on the machine, for the one who reads. Throws `invalid_state` while sandboxes run. */
export async function uninstall(options: UninstallOptions): Promise<{ kept: string[] }> {
  const { progress, root, purge, force } = options;
  if (process.getuid?.() !== 0) throw new ThawError('forbidden', 'this needs root: sudo');
  const paths = new InstallPaths({ root, prefix: options.prefix });
  const record = await readRecord(paths);
  const run = paths.at(record.run);
  const count = await countSandboxes(run);
  if (count > 0 && !force)
    throw new ThawError(
      'invalid_state',
      `${count} ${count === 1 ? 'sandbox runs' : 'sandboxes run'}: pause or destroy them first, or use --force, which pauses them`,
    );
  if (count > 0) await progress.step(`pause ${count}`, () => pauseSandboxes(run, progress.say));
  await progress.step('stop', () => stop(paths, record));
  await endVms(run, progress.say);
  await progress.step('remove', () => removeFiles(paths, record, purge));
  if (purge) await progress.step('purge', () => removeData(paths, record));
  const kept = [record.data, paths.settings].map((file) => paths.at(file));
  const left = await Promise.all(kept.map(async (file) => ((await exists(file)) ? [file] : [])));
  return { kept: left.flat() };
}

async function stop(paths: InstallPaths, record: InstallRecord): Promise<void> {
  if (record.systemd && paths.root === '' && (await systemdRuns()))
    await systemctl('disable', '--now', UNIT, SANDBOXES_UNIT);
  const running = await findRunning(paths.at(record.run));
  // Another installation's, or one started from a folder, is none of ours.
  if (running?.version.startsWith(`${paths.at(paths.versions)}/`))
    await stopRunning(running, STOP_TIMEOUT_MS);
}

async function removeFiles(paths: InstallPaths, record: InstallRecord, purge: boolean): Promise<void> {
  for (const file of record.files) {
    if (file === paths.settings && !purge) continue;
    // A link that leads elsewhere by now belongs to somebody else.
    if (file === paths.launcher && (await readlink(paths.at(file)).catch(() => '')) !== paths.program)
      continue;
    await rm(paths.at(file), { force: true });
  }
  if (record.systemd && paths.root === '' && (await systemdRuns())) await systemctl('daemon-reload');
  for (const id of record.versions) await rm(paths.at(paths.version(id)), { recursive: true, force: true });
  await rm(paths.at(paths.current), { force: true });
  await rm(paths.at(paths.record), { force: true });
  await rmdir(path.dirname(paths.at(paths.settings))).catch(() => {});
  for (const folder of [paths.versions, paths.prefix]) await rmdir(paths.at(folder)).catch(() => {});
}

async function removeData(paths: InstallPaths, record: InstallRecord): Promise<void> {
  const data = paths.at(record.data);
  // Only what Thaw puts there: somebody may have pointed the settings at a folder with other things in it.
  for (const name of await readdir(data).catch(() => [])) {
    if (DATA_NAMES.includes(name) || UNFINISHED.test(name))
      await rm(path.join(data, name), { recursive: true, force: true });
  }
  await rmdir(data).catch(() => {});
  await rm(paths.at(record.run), { recursive: true, force: true });
  if (paths.root === '') for (const name of record.users) await removeUser(name);
}
