/** Removes a sandbox in whatever state it is: its VM, files and the builds that nothing else needs. */
import { readHead, removeHead } from '../build/head.ts';
import { releaseBuild } from '../build/release.ts';
import { type Host, newSteps } from '../host.ts';
import { removeSandboxFiles } from './record.ts';
import type { Sandbox } from './sandbox.ts';

/** A sandbox that is not here is as destroyed as it gets. */
export async function destroy(host: Host, id: string): Promise<void> {
  if (!host.registry.has(id)) return;
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
  const owner = { kind: 'sandbox', id: sandbox.id } as const;
  const head = await readHead(host.builds, owner).catch((error) => {
    host.log.warn({ sandbox: sandbox.id, err: error }, 'the head of a destroyed sandbox was damaged');
    return undefined;
  });
  await removeHead(host.builds, steps, 'destroy', owner);
  await removeSandboxFiles(host.config, sandbox.id, steps, 'destroy:remove-files');
  host.registry.remove(sandbox);
  if (head === undefined) return;
  const { refused } = await releaseBuild(host.builds, steps, 'destroy', head.build);
  if (refused !== undefined) host.log.warn({ sandbox: sandbox.id, err: refused }, 'builds were kept');
}
