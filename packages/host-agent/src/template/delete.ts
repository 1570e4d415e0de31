/** Removes a snapshot template; sandboxes that page from its build keep it. */
import { TEMPLATE_ID, ThawError } from '@thaw/api';
import { readHead, removeHead } from '../build/head.ts';
import { releaseBuild } from '../build/release.ts';
import { type Host, newSteps } from '../host.ts';
import { templateFacts } from './facts.ts';

export async function deleteTemplate(host: Host, id: string): Promise<void> {
  const steps = newSteps(host);
  const owner = { kind: 'template', id } as const;
  const head = await readHead(host.builds, owner).catch((error) => {
    // Only snapshots have generated ids; which build a damaged head named is not known, so the next start sweeps it.
    if (!TEMPLATE_ID.test(id.split(':')[0]!)) throw error;
    host.log.warn({ template: id, err: error }, 'the head of a deleted template was damaged');
    return 'damaged' as const;
  });
  if (head === 'damaged') return removeHead(host.builds, steps, 'delete', owner);
  if (head === undefined) throw new ThawError('not_found', 'no such template');
  if (templateFacts(head.facts).type === 'base') {
    throw new ThawError('conflict', 'a base template can not be deleted');
  }
  await removeHead(host.builds, steps, 'delete', owner);
  const { refused } = await releaseBuild(host.builds, steps, 'delete', head.build);
  // What waits for its clones holds its files.
  host.places.refill();
  if (refused !== undefined) host.log.warn({ template: id, err: refused }, 'builds were kept');
}
