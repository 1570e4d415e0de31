/** `thaw doctor`: what this machine can do for sandboxes, and what to do about what is missing. */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import type { Config } from '../config.ts';
import { readSettings } from '../install/files.ts';
import { DEFAULT_PREFIX, InstallPaths } from '../install/paths.ts';
import { findRecord } from '../install/record.ts';
import { printJson, printLine } from '../print.ts';

interface Finding {
  name: string;
  status: 'ok' | 'warn' | 'fail';
  found: string;
  fix?: string;
}

interface Report {
  ok: boolean;
  isolation: 'hardware-vm' | 'emulated';
  findings: Finding[];
}

/** All probes together end long before. */
const TIMEOUT_MS = 300_000;

/** Prints the report; true when sandboxes can run. */
export async function doctor(
  config: Config,
  env: NodeJS.ProcessEnv,
  { json = false }: { json?: boolean },
): Promise<boolean> {
  const report = await examine(config, env);
  await (json ? printJson(report) : printLine(describe(report)));
  return report.ok;
}

/** The probes are the host agent's own, in a process of theirs. An installed Thaw is examined with its settings. */
export async function examine(config: Config, env: NodeJS.ProcessEnv): Promise<Report> {
  const { version } = config;
  if (version === undefined)
    throw new ThawError('invalid_state', 'thaw doctor runs from an installed version: make setup');
  const program = path.join(version, 'packages/host-agent/src/doctor/main.ts');
  const paths = new InstallPaths({ root: '', prefix: env.THAW_PREFIX || DEFAULT_PREFIX });
  const record = await findRecord(paths);
  const installed = record === undefined ? {} : await readSettings(paths, record.systemd);
  const output = await new Promise<string>((resolve, reject) => {
    const options = {
      env: { ...installed, ...env, THAW_VERSION_DIR: version },
      timeout: TIMEOUT_MS,
      maxBuffer: 2 ** 24,
    };
    execFile(path.join(version, 'bin/node'), [program], options, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      reject(new ThawError('internal', `this machine can't be examined: ${stderr.trim() || error.message}`));
    });
  });
  return JSON.parse(output) as Report;
}

export function describe({ ok, isolation, findings }: Report): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  const lines = findings.flatMap(({ name, status, found, fix }) => [
    `${{ ok: 'ok  ', warn: 'warn', fail: 'FAIL' }[status]}  ${name.padEnd(width)}  ${found}`,
    ...(fix === undefined ? [] : [`${' '.repeat(width + 8)}${status === 'ok' ? '' : '→ '}${fix}`]),
  ]);
  const verdict = ok
    ? `Sandboxes can run here (isolation: ${isolation}).`
    : 'No sandbox can run here before what is marked FAIL is mended.';
  return [...lines, '', verdict].join('\n');
}
