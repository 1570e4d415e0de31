/** `thaw upgrade`: puts the version that this program belongs to beside the installed one, switches, and restarts. */
import path from 'node:path';
import { ThawError } from '@thaw/api';
import { switchTo, writeUnits } from '../install/files.ts';
import { type InstallOptions, requireInstallable } from '../install/install.ts';
import { InstallPaths, UNIT } from '../install/paths.ts';
import { readRecord, writeRecord } from '../install/record.ts';
import { systemctl, systemdRuns } from '../install/systemd.ts';
import { exists, placeVersion, prune, type Version } from '../install/version.ts';
import { findRunning, renewRunning } from '../up/running.ts';

export interface Upgraded extends Version {
  /** `thaw up` ran and runs as the new version now; sandboxes went on. */
  restarted: boolean;
}

const RESTART_TIMEOUT_MS = 300_000;

/** Throws `not_found` where nothing is installed. */
export async function upgrade(options: Omit<InstallOptions, 'systemd'>): Promise<Upgraded> {
  const { progress, root, prefix } = options;
  const { from, version } = await requireInstallable(options);
  const paths = new InstallPaths({ root, prefix });
  const record = await readRecord(paths);
  await progress.step(`version ${version.version} (${version.id})`, () =>
    placeVersion(from, paths.at(paths.versions), version.id),
  );
  await writeRecord(paths, { ...record, versions: [...new Set([...record.versions, version.id])] });
  await switchTo(paths, version.id);
  if (record.systemd) await writeUnits(paths);
  const restarted = await progress.step('restart; sandboxes go on', () => restart(paths, record, version.id));
  await prune(paths.at(paths.versions), [paths.at(paths.version(version.id))]);
  const left = await Promise.all(
    [...new Set([...record.versions, version.id])].map(async (id) =>
      (await exists(paths.at(paths.version(id)))) ? [id] : [],
    ),
  );
  await writeRecord(paths, { ...record, versions: left.flat() });
  return { ...version, restarted };
}

async function restart(
  paths: InstallPaths,
  { systemd, run }: { systemd: boolean; run: string },
  id: string,
): Promise<boolean> {
  const running = await findRunning(paths.at(run));
  if (systemd && paths.root === '' && (await systemdRuns())) {
    await systemctl('daemon-reload');
    await systemctl('restart', UNIT);
    return true;
  }
  if (running === undefined) return false;
  if (!running.version.startsWith(`${paths.at(paths.versions)}/`))
    throw new ThawError(
      'conflict',
      `the Thaw that runs is that of ${running.version}, not the installed one: stop it and start ${paths.program} up`,
    );
  const version = path.join(paths.at(paths.versions), id);
  await renewRunning(paths.at(run), running, version, RESTART_TIMEOUT_MS);
  return true;
}
