/** `thaw install`: makes the version that this program belongs to the machine's, to be started with it. */
import path from 'node:path';
import { ThawError } from '@thaw/api';
import type { Config } from '../config.ts';
import { examine } from '../doctor/doctor.ts';
import type { Progress } from '../progress.ts';
import { settingsOf, switchTo, writeSettings, writeUnits } from './files.ts';
import { InstallPaths, SANDBOXES_UNIT, UNIT } from './paths.ts';
import { findRecord, type InstallRecord, writeRecord } from './record.ts';
import { systemctl, systemdRuns } from './systemd.ts';
import { ensureUser, USERS } from './user.ts';
import { placeVersion, readVersion, type Version } from './version.ts';

export interface InstallOptions {
  config: Config;
  env: NodeJS.ProcessEnv;
  progress: Progress;
  prefix: string;
  /** Where everything is written in the place of `/`; then nothing of this machine is changed or started. */
  root: string;
  systemd: boolean;
}

export interface Installed extends Version {
  prefix: string;
  /** The units are there, and it runs. */
  started: boolean;
  /** What keeps sandboxes from running here, each with what to do; then nothing is started. */
  problems: string[];
  /** How to start it by hand. */
  start: string;
}

/** Does again what is done already without harm. Throws `conflict` where another version is installed. */
export async function install(options: InstallOptions): Promise<Installed> {
  const { config, progress, root } = options;
  const { from, version } = await requireInstallable(options);
  const paths = new InstallPaths({ root, prefix: options.prefix });
  const before = await findRecord(paths);
  if (before !== undefined && !before.versions.includes(version.id))
    throw new ThawError('conflict', `Thaw is installed in ${paths.at(paths.prefix)} already: thaw upgrade`);
  const starts = options.systemd && root === '';
  if (starts && !(await systemdRuns()))
    throw new ThawError('invalid_state', 'systemd does not run on this machine: thaw install --no-systemd');

  const record: InstallRecord = before ?? {
    versions: [],
    files: [],
    users: [],
    systemd: options.systemd,
    data: config.data,
    run: config.run,
  };
  record.systemd ||= options.systemd;
  const note = async (part: Partial<Pick<InstallRecord, 'versions' | 'files' | 'users'>>) => {
    for (const name of ['versions', 'files', 'users'] as const)
      record[name] = [...new Set([...record[name], ...(part[name] ?? [])])];
    await writeRecord(paths, record);
  };
  await progress.step(`version ${version.version} (${version.id})`, () =>
    placeVersion(from, paths.at(paths.versions), version.id),
  );
  await note({ versions: [version.id] });
  if (root === '') {
    for (const name of USERS) if (await ensureUser(name)) await note({ users: [name] });
  }
  await progress.step('settings', () => writeSettings(paths, settingsOf(options.env)));
  await note({ files: [paths.settings] });
  await note({ files: await switchTo(paths, version.id) });
  if (options.systemd) await note({ files: await progress.step('systemd units', () => writeUnits(paths)) });
  const problems = root === '' ? await progress.step('examination', () => findProblems(options)) : [];
  const started = starts && problems.length === 0;
  if (starts) {
    await systemctl('daemon-reload');
    await systemctl('enable', SANDBOXES_UNIT, UNIT);
    if (started) await progress.step('start', () => systemctl('start', SANDBOXES_UNIT, UNIT));
  }
  return { ...version, prefix: paths.prefix, started, problems, start: startCommand(paths, starts) };
}

/** The version that this program belongs to. Throws where that, or this user, can't be installed from. */
export async function requireInstallable(options: {
  config: Config;
  root: string;
  prefix: string;
}): Promise<{ from: string; version: Version }> {
  const { config, root, prefix } = options;
  if (process.getuid?.() !== 0) throw new ThawError('forbidden', 'this needs root: sudo');
  if (config.version === undefined)
    throw new ThawError(
      'invalid_state',
      'this is a checkout, not a version: make setup, or unpack a release',
    );
  for (const [name, value] of Object.entries({ prefix, root: root || '/' })) {
    if (!path.isAbsolute(value) || path.normalize(value) !== value || /[\s"'\\]/.test(value))
      throw new ThawError(
        'invalid_request',
        `--${name} is an absolute path without spaces, not ${JSON.stringify(value)}`,
      );
  }
  return { from: config.version, version: await readVersion(config.version) };
}

async function findProblems({ config, env }: InstallOptions): Promise<string[]> {
  const { findings } = await examine(config, env);
  return findings
    .filter(({ status }) => status === 'fail')
    .map(({ name, found, fix }) => `${name}: ${found} → ${fix}`);
}

/** A line for a shell, or for whatever starts programs where there is no systemd. */
function startCommand(paths: InstallPaths, systemd: boolean): string {
  if (systemd) return `systemctl start ${UNIT}`;
  return `set -a; . ${paths.settings}; set +a; exec ${paths.program} up`;
}
