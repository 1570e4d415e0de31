/** Freezes a sandbox into a template. A running one goes on; of a paused one its last build is taken. */
import { ThawError } from '@thaw/api';
import type { Build } from '../build/build.ts';
import { commitHead } from '../build/head.ts';
import { isOwnerId } from '../build/paths.ts';
import { releaseBuild } from '../build/release.ts';
import { type Host, newSteps } from '../host.ts';
import type { Steps } from '../os/step.ts';
import { type Template, templateOf } from '../template/facts.ts';
import { nowSeconds, type Sandbox } from './sandbox.ts';
import { sealed } from './sealed.ts';

export interface SnapshotRequest {
  sandboxId: string;
  templateId: string;
  name: string;
}

export function snapshot(
  host: Host,
  request: SnapshotRequest,
): Promise<{ sandbox: Sandbox; template: Template }> {
  // Before anything is sealed for it.
  if (!isOwnerId(request.templateId)) throw new ThawError('invalid_request', 'not an id of a template');
  const sandbox = host.registry.get(request.sandboxId);
  return sandbox.exclusive(
    'snapshot',
    async () => {
      const steps = newSteps(host);
      try {
        const build = await sealed(host, sandbox, steps);
        const template = await name(host, steps, sandbox, build, request);
        return { sandbox, template };
      } finally {
        sandbox.timings = steps.timings();
      }
    },
    request.templateId,
  );
}

/** Points the template at the build; sandboxes that page from an earlier one keep it. */
async function name(
  host: Host,
  steps: Steps,
  sandbox: Sandbox,
  build: Build,
  { templateId, name }: SnapshotRequest,
): Promise<Template> {
  const { memoryMb, counter } = sandbox.record;
  const facts = { name, type: 'snapshot' as const, memoryMb, counter, createdAt: nowSeconds() };
  const owner = { kind: 'template', id: templateId } as const;
  const before = await commitHead(host.builds, steps, 'template', owner, { build: build.id, facts });
  if (before !== undefined) await releaseBuild(host.builds, steps, 'template', before.build);
  return templateOf(templateId, facts, build);
}
