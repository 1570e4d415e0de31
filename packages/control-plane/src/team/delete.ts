/**
 * The end of a team.
 *
 *   open ─► closing: its keys are revoked, nothing is made for it ─► its sandboxes, then its templates go ─► gone
 *
 * What fails or is cut off leaves it closing; the next delete goes on from there.
 */
import { DEFAULT_TEAM, ThawError } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { destroySandbox } from '../sandbox/destroy.ts';
import { deleteSnapshot } from '../template/delete.ts';
import {
  closeTeam,
  countBelongings,
  listSandboxIds,
  listTemplateIds,
  lockTeam,
  removeTeam,
} from './table.ts';
import { requireTeam } from './team.ts';

/** Of each thing that was destroyed with a team. */
export type Destroyed = (verb: 'destroySandbox' | 'deleteSnapshot', id: string) => void;

export interface DeleteTeamOptions {
  /** Without it a team that has something is refused. */
  force: boolean;
  forgetKey: (keyId: string) => void;
  destroyed: Destroyed;
}

export async function deleteTeam(
  plane: Plane,
  nameOrId: string,
  { force, forgetKey, destroyed }: DeleteTeamOptions,
): Promise<void> {
  const { id, name } = await requireTeam(plane.db, nameOrId);
  if (id === DEFAULT_TEAM)
    throw new ThawError('conflict', `team ${name} is the one of the operators and cannot be deleted`);
  const keys = await plane.db.transaction().execute(async (transaction) => {
    await lockTeam(transaction, id);
    const { sandboxes, templates } = await countBelongings(transaction, id);
    if (!force && sandboxes + templates > 0)
      throw new ThawError(
        'conflict',
        `team ${name} has ${sandboxes} sandboxes and ${templates} templates: destroy them first, or force it`,
      );
    return closeTeam(transaction, id);
  });
  for (const key of keys) forgetKey(key);
  await destroyAll(plane, id, destroyed);
  await plane.db.transaction().execute(async (transaction) => {
    await lockTeam(transaction, id);
    const { sandboxes, templates } = await countBelongings(transaction, id);
    if (sandboxes + templates > 0)
      throw new ThawError('conflict', `team ${name} still has something: a verb was under way; try again`);
    await removeTeam(transaction, id);
  });
}

/** Sandboxes first: nothing begins to make a template of one that is gone. */
async function destroyAll(plane: Plane, teamId: string, destroyed: Destroyed): Promise<void> {
  for (const id of await listSandboxIds(plane.db, teamId)) {
    await destroySandbox(plane, teamId, id);
    destroyed('destroySandbox', id);
  }
  await plane.templateVerbs.idleUnder(`${teamId}/`);
  for (const id of await listTemplateIds(plane.db, teamId)) {
    await deleteSnapshot(plane, teamId, id);
    destroyed('deleteSnapshot', id);
  }
}
