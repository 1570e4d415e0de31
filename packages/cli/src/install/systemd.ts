/** systemd, where it runs. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { ThawError } from '@thaw/api';
import { exists } from './version.ts';

/** A start waits for the database and for what the host agent sweeps. */
const TIMEOUT_MS = 300_000;

/** As sd_booted(3). */
export function systemdRuns(): Promise<boolean> {
  return exists('/run/systemd/system');
}

/** Throws `internal` with what it said. */
export async function systemctl(...args: string[]): Promise<void> {
  try {
    await promisify(execFile)('systemctl', args, { timeout: TIMEOUT_MS });
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim();
    throw new ThawError('internal', `systemctl ${args.join(' ')}: ${said || (error as Error).message}`, {
      cause: error,
    });
  }
}
