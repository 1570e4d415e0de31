/** Removes a sandbox in whatever state it is: its VM, files and the builds that nothing else needs. */

import { SANDBOX_ID, ThawError } from '@thaw/api';
import { readHead, removeHead } from '../build/head.ts';
import { releaseBuild } from '../build/release.ts';
import { type Host, newSteps } from '../host.ts';
import { exists } from '../os/exists.ts';
import type { Steps } from '../os/step.ts';
import { SandboxPaths } from './paths.ts';
import { removeSandboxFiles } from './record.ts';
import type { Sandbox } from './sandbox.ts';

/** A sandbox that is not here is as destroyed as it gets, once nothing lies in its folder. */
export async function destroy(host: Host, id: string): Promise<void> {
  if (!SANDBOX_ID.test(id)) throw new ThawError('invalid_request', 'not an id of a sandbox');
  if (!host.registry.has(id)) return await removeRemains(host, id);
  const sandbox = host.registry.get(id);
  await sandbox.exclusive('destroy', () => remove(host, sandbox));
}

async function remove(host: Host, sandbox: Sandbox): Promise<void> {
  if (!host.registry.has(sandbox.id)) return;
  const steps = newSteps(host);
  const before = sandbox.state;
  sandbox.state = { status: 'stopping' };
  sandbox.endCalls();
  if (before.status === 'running') {
    const { machine } = before;
    await steps.run('destroy:end', () => machine.end()).finally(() => machine.end());
  }
  await removeStored(host, steps, sandbox.id, () => host.registry.remove(sandbox));
  // What waits for sandboxes of its size may be of no use any more.
  host.places.refill();
}

/** What a create that failed could not remove. */
async function removeRemains(host: Host, id: string): Promise<void> {
  const { data } = new SandboxPaths(host.config, id);
  if (await exists(data)) await removeStored(host, newSteps(host), id, () => {});
}

/** `onRemoved`: nothing but builds is left. */
async function removeStored(host: Host, steps: Steps, id: string, onRemoved: () => void): Promise<void> {
  const owner = { kind: 'sandbox', id } as const;
  const head = await readHead(host.builds, owner).catch((error) => {
    host.log.warn({ sandbox: id, err: error }, 'the head of a destroyed sandbox was damaged');
    return undefined;
  });
  await removeHead(host.builds, steps, 'destroy', owner);
  await removeSandboxFiles(host.config, id, steps, 'destroy:remove-files');
  onRemoved();
  if (head === undefined) return;
  const { refused } = await releaseBuild(host.builds, steps, 'destroy', head.build);
  if (refused !== undefined) host.log.warn({ sandbox: id, err: refused }, 'builds were kept');
}
