/** Every template of this host. */
import { ThawError } from '@thaw/api';
import { type Head, listHeads } from '../build/head.ts';
import { readBuild } from '../build/read.ts';
import type { Host } from '../host.ts';
import {
  type DamagedTemplate,
  type Template,
  type TemplateFacts,
  templateFacts,
  templateOf,
} from './facts.ts';

/** One that can't be read is listed with the reason and told to the log: it may be repaired. */
export async function listTemplates(
  host: Pick<Host, 'builds' | 'log'>,
): Promise<(Template | DamagedTemplate)[]> {
  const templates: (Template | DamagedTemplate)[] = [];
  for (const { owner, head } of await listHeads(host.builds, 'template')) {
    let facts: TemplateFacts | undefined;
    try {
      const { build, facts: kept } = readable(head);
      facts = templateFacts(kept);
      templates.push(await templateOf(owner.id, facts, await readBuild(host.builds, build)));
    } catch (error) {
      host.log.error({ template: owner.id, err: error }, 'template can not be read');
      const errorReason = error instanceof ThawError ? error.message : 'its head makes no sense';
      templates.push({ id: owner.id, facts, errorReason });
    }
  }
  return templates;
}

function readable(head: Head | Error): Head {
  if (head instanceof Error) throw head;
  return head;
}
