/** Every template of this host. */
import { listHeads } from '../build/head.ts';
import { readBuild } from '../build/read.ts';
import type { Host } from '../host.ts';
import { type Template, templateFacts, templateOf } from './facts.ts';

/** A template that can't be read is left out and told to the log. */
export async function listTemplates(host: Host): Promise<Template[]> {
  const templates: Template[] = [];
  for (const { owner, head } of await listHeads(host.builds, 'template')) {
    try {
      if (head instanceof Error) throw head;
      templates.push(
        await templateOf(owner.id, templateFacts(head.facts), await readBuild(host.builds, head.build)),
      );
    } catch (error) {
      host.log.error({ template: owner.id, err: error }, 'template can not be read');
    }
  }
  return templates;
}
