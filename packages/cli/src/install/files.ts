/** The files and links of an installation outside of its prefix. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { InstallPaths } from './paths.ts';
import { SANDBOXES_GROUP, sandboxesUnitText, settingsText, unitText, unquote } from './units.ts';
import { pointTo } from './version.ts';

/** What of the environment belongs into the settings of an installed Thaw. */
export function settingsOf(env: NodeJS.ProcessEnv): Record<string, string> {
  const own =
    /^(THAW_(DATA|RUN|LISTEN|TLS_CERT|TLS_KEY|INSECURE|UPLINK|ALLOWED_ORIGINS|SLOT_POOL|UID_BASE|DIRTY)|DATABASE_URL)$/;
  return Object.fromEntries(
    Object.entries(env).filter((entry): entry is [string, string] => own.test(entry[0]) && !!entry[1]),
  );
}

/** The settings that the installed Thaw starts with; none where nothing is installed. */
export async function readSettings(paths: InstallPaths, systemd: boolean): Promise<Record<string, string>> {
  const text = await readFile(paths.at(paths.settings), 'utf8').catch(() => '');
  const lines = text.split('\n').flatMap((line): [string, string][] => {
    const [, name, value = ''] = /^([A-Z][A-Z0-9_]*)=(.*)$/.exec(line.trim()) ?? [];
    return name === undefined ? [] : [[name, unquote(value)]];
  });
  return { ...(systemd && { THAW_CGROUP: SANDBOXES_GROUP }), ...Object.fromEntries(lines) };
}

/** Writes the units as this version has them. What they are, as the installed system sees them. */
export async function writeUnits(paths: InstallPaths): Promise<string[]> {
  await write(paths.at(paths.unit), unitText(paths), 0o644);
  await write(paths.at(paths.sandboxesUnit), sandboxesUnitText(), 0o644);
  return [paths.unit, paths.sandboxesUnit];
}

/** The operator's file: made once, never overwritten. */
export async function writeSettings(paths: InstallPaths, settings: Record<string, string>): Promise<boolean> {
  // It may hold a database's password.
  return write(paths.at(paths.settings), settingsText(settings), 0o600, 'wx').then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false;
      throw error;
    },
  );
}

/** Makes `version` the one that `thaw` means. */
export async function switchTo(paths: InstallPaths, id: string): Promise<string[]> {
  await pointTo(paths.at(paths.current), path.join('versions', id));
  await pointTo(paths.at(paths.launcher), paths.program);
  return [paths.launcher];
}

async function write(file: string, text: string, mode: number, flag = 'w'): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true, mode: 0o755 });
  if (flag === 'w' && (await readFile(file, 'utf8').catch(() => undefined)) === text) return;
  await writeFile(file, text, { mode, flag });
}
