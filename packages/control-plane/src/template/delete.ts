import { TEMPLATE_NAME, ThawError } from '@thaw/api';
import { pruneBuilds } from '../build/table.ts';
import { throughOutage } from '../db/connect.ts';
import type { Plane } from '../plane.ts';
import { findTemplate, removeTemplate } from './table.ts';

/** The row goes only after the host's head did. Sandboxes made of the template keep the builds they need. */
export async function deleteSnapshot(plane: Plane, teamId: string, name: string): Promise<void> {
  const found = TEMPLATE_NAME.test(name) ? await findTemplate(plane.db, teamId, name) : undefined;
  if (!found) throw new ThawError('not_found', `template ${name} does not exist`);
  if (found.type === 'base')
    throw new ThawError('conflict', `${found.name} is a base template and cannot be deleted`);
  await plane.templateVerbs.run(
    `${teamId}/${found.name}`,
    'delete',
    `template ${found.name} is being deleted`,
    async () => {
      const row = await findTemplate(plane.db, teamId, found.id);
      if (!row) throw new ThawError('not_found', `template ${name} does not exist`);
      await plane.host.deleteSnapshot(row.id);
      await throughOutage(async () => {
        await removeTemplate(plane.db, row.id, row.build_id);
        await pruneBuilds(plane.db);
      });
    },
  );
}
