/** The daemons' own users: neither can log in, neither owns a program. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

/** The control plane's, and the embedded PostgreSQL's. */
export const USERS = ['thaw', 'thaw-db'] as const;

/** True when it was made now. */
export async function ensureUser(name: string): Promise<boolean> {
  const passwd = await readFile('/etc/passwd', 'utf8');
  if (passwd.split('\n').some((line) => line.startsWith(`${name}:`))) return false;
  const flags = ['--system', '--user-group', '--no-create-home', '--home-dir', '/nonexistent'];
  await promisify(execFile)('/usr/sbin/useradd', [...flags, '--shell', '/usr/sbin/nologin', name]);
  return true;
}

export async function removeUser(name: string): Promise<void> {
  await promisify(execFile)('/usr/sbin/userdel', [name]);
}
