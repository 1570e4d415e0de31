/** Makes the installed images the base templates of this host; one that has not changed is left alone. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { readHead, removeHead } from '../build/head.ts';
import { importImage } from '../build/import.ts';
import { type Host, newSteps } from '../host.ts';
import { nowSeconds } from '../sandbox/sandbox.ts';
import { templateFacts } from './facts.ts';

const schema = z.object({
  images: z.record(
    z.string(),
    z.object({ file: z.string().regex(/^[\w.-]+$/), size_bytes: z.number(), id: z.string() }),
  ),
});

export async function importImages(host: Host, guestDir: string): Promise<void> {
  const guest = schema.parse(JSON.parse(await readFile(path.join(guestDir, 'guest.json'), 'utf8')));
  for (const [name, image] of Object.entries(guest.images)) {
    const owner = { kind: 'template', id: name } as const;
    const head = await readHead(host.builds, owner).catch((error) => {
      host.log.error({ template: name, err: error }, 'the head of a base template was damaged');
      return 'damaged' as const;
    });
    if (head === 'damaged') await removeHead(host.builds, newSteps(host), 'import', owner);
    else if (head !== undefined && templateFacts(head.facts).image === image.id) continue;
    host.log.info({ template: name }, 'importing base image');
    await importImage(host.builds, newSteps(host), 'import', {
      image: path.join(guestDir, image.file),
      template: name,
      facts: { name, type: 'base', memoryMb: 0, counter: 0, createdAt: nowSeconds(), image: image.id },
    });
  }
}
