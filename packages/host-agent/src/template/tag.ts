/** Gives a snapshot's build one more name: a head of its own, so that the build stays for as long as either is there. */
import { ThawError } from '@thaw/api';
import { acquireHead } from '../build/acquire.ts';
import { commitHead } from '../build/head.ts';
import { isOwnerId } from '../build/paths.ts';
import { releaseBuild } from '../build/release.ts';
import { type Host, newSteps } from '../host.ts';
import { type Template, templateFacts, templateOf } from './facts.ts';

/**
 * What `id` named before is released. Throws `not_found` where `sourceId` is not here, `conflict`
 * for a base template.
 */
export async function tagTemplate(
  host: Host,
  sourceId: string,
  { id, name }: { id: string; name: string },
): Promise<Template> {
  if (!isOwnerId(id)) throw new ThawError('invalid_request', 'not an id of a template');
  const steps = newSteps(host);
  const { head, build, hold } = await acquireHead(host.builds, { kind: 'template', id: sourceId });
  using _ = hold;
  const facts = { ...templateFacts(head.facts), name };
  if (facts.type === 'base') throw new ThawError('conflict', 'a base template has no tags of its own');
  const owner = { kind: 'template', id } as const;
  const before = await commitHead(host.builds, steps, 'template', owner, { build: head.build, facts });
  if (before !== undefined && before.build !== head.build)
    await releaseBuild(host.builds, steps, 'template', before.build);
  return templateOf(id, facts, build);
}
