/** A guest that waits to be somebody runs a first program for nobody, so that its next one finds all that it needs. */
import { randomBytes } from 'node:crypto';
import { ThawError } from '@thaw/api';
import { ask, timestamps } from './control.ts';
import { stream } from './exec.ts';
import { Guest } from './guest.ts';

/** The first finds most of what was missing, the second what is only looked for then. The last one nobody has ever looked up. */
const PROGRAMS = ['true', 'true', 'echo', `nothing-${randomBytes(4).toString('hex')}`];

/** Its users' processes stand still meanwhile. Throws `timeout`, `agent_error`, or why `signal` was aborted. */
export async function rehearse(host: string, timeoutMs: number, signal: AbortSignal): Promise<void> {
  const token = randomBytes(24).toString('hex');
  const init = {
    counter: 0,
    ...timestamps(),
    entropy: randomBytes(64).toString('base64'),
    sandboxId: 'nobody',
    templateId: 'nobody',
    hostname: 'nobody',
    machineId: randomBytes(16).toString('hex'),
    accessToken: token,
    envVars: { NOBODY: '1' },
    defaultUser: 'root',
    defaultWorkdir: '/root',
  };
  const answer = await ask(host, '/rehearse', () => ({ token, init }), timeoutMs, signal);
  if (answer.status !== 204)
    throw new ThawError('agent_error', 'the guest does not rehearse', { cause: answer });
  const guest = new Guest(host, token);
  try {
    for (const cmd of PROGRAMS) {
      const command = { cmd, args: [], cwd: '', env: {}, user: 'root', timeoutMs, stdin: false };
      for await (const _ of stream(guest, command, signal));
    }
  } finally {
    guest.close();
  }
}
