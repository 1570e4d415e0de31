/** The system's users, from /etc/passwd: the daemons run as users of their own. */
import { readFile } from 'node:fs/promises';
import { ThawError } from '@thaw/api';

export interface User {
  name: string;
  uid: number;
  gid: number;
}

/** Throws `not_found` when the machine has no such user. */
export async function findUser(name: string): Promise<User> {
  for (const line of (await readFile('/etc/passwd', 'utf8')).split('\n')) {
    const [login, , uid, gid] = line.split(':');
    if (login === name) return { name, uid: Number(uid), gid: Number(gid) };
  }
  throw new ThawError('not_found', `this machine has no user ${name}: install Thaw first (thaw install)`);
}
