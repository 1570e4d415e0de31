/**
 * A host of the test file's own: new network, mount and process namespaces with a `/run` and an internet of their
 * own. No packet can leave the machine, what is counted is only this file's, and nothing remains however it ends.
 */
import { spawn } from 'node:child_process';
import { buildInternet } from '../../packages/host-agent/src/network/fixture/own-host.ts';

const INSIDE = 'THAW_E2E_OWN_HOST';
const ENDED_BY_US = ['SIGTERM', 'SIGINT'] as const;

/** The guests' way out, and the address that answers there. */
export const UPLINK = 'uplink0/203.0.113.1';
export const INTERNET = '203.0.113.1';

/**
 * To be awaited before a file defines its tests: runs the file again inside, with the same reporter, and does not
 * return outside.
 */
export async function ownHost(file: string): Promise<void> {
  if (process.env[INSIDE] !== undefined) return buildInternet();
  const namespaces = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  // The shell is process 1 there: it collects the orphans that a test leaves.
  const init = ['sh', '-c', '"$@"; exit $?', 'sh', process.execPath, ...process.execArgv, file];
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', ...namespaces, ...init], {
    env: { ...process.env, [INSIDE]: '1' },
    stdio: 'inherit',
  });
  for (const signal of ENDED_BY_US) process.on(signal, () => child.kill('SIGKILL'));
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => resolve(status ?? 1));
  });
  process.exit(code);
}
