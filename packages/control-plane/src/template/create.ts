import { type CreateSnapshot, newTemplateId, type TemplateInfo, ThawError } from '@thaw/api';
import { isTaken, throughOutage } from '../db/connect.ts';
import { noteTarget } from '../http/request.ts';
import type { Plane } from '../plane.ts';
import { requireSandbox, wrongState } from '../sandbox/sandbox.ts';
import { transition } from '../sandbox/transition.ts';
import { baseOf, tagged, tagOf, verbKey } from './name.ts';
import { recordTemplate } from './sync.ts';
import { findTags, findTemplate, insertOwner, type TemplateRow } from './table.ts';
import { toTemplate } from './template.ts';
import { warmUp } from './warm-up.ts';

/** Answers the template as `/v1` does. */
export async function createSnapshot(
  plane: Plane,
  teamId: string,
  wish: CreateSnapshot,
  overwrite: boolean,
): Promise<TemplateInfo> {
  const { row, timings } = await freeze(plane, teamId, wish, overwrite);
  return toTemplate(row, timings);
}

/**
 * Freezes a sandbox into a template; the sandbox keeps its state. Overwriting moves the template's head to the new
 * build: nothing of the old one is touched before the new one is complete. A name with a tag makes a head of its own for
 * the template of that name, or the first of a new one. `after`: waits for what else is being done to template and sandbox.
 */
export async function freeze(
  plane: Plane,
  teamId: string,
  wish: CreateSnapshot,
  overwrite: boolean,
  order: 'run' | 'after' = 'run',
): Promise<{ row: TemplateRow; timings: Record<string, number> }> {
  noteTarget(wish.sandbox_id);
  const freshId = newTemplateId();
  const name = wish.name === undefined ? freshId : tagged(baseOf(wish.name), tagOf(wish.name));
  if (wish.name !== undefined) noteTarget(name);
  const key = `snapshot ${name} ${wish.sandbox_id} ${overwrite} ${JSON.stringify(wish.warm_up)}`;
  const busy = `template ${name} is being written`;
  return plane.templateVerbs[order](verbKey(teamId, name), key, busy, async () => {
    const taken = checkName(await findTemplate(plane.db, teamId, name), name, overwrite);
    if (wish.warm_up !== undefined) await warmUp(plane, teamId, wish.sandbox_id, wish.warm_up);
    const { id } = await requireSandbox(plane, teamId, wish.sandbox_id);
    const templateId = taken?.id ?? (await newTagId(plane, teamId, name, freshId));
    if (!taken) await insertOwner(plane.db, templateId, teamId);
    noteTarget(templateId);
    const frozen = `sandbox ${id} is snapshotting`;
    const { done, parent } = await plane.verbs[order](id, `snapshot ${name}`, frozen, async () => {
      const sandbox = await requireSandbox(plane, teamId, id);
      if (sandbox.status !== 'running' && sandbox.status !== 'paused') throw wrongState(sandbox);
      const done = await transition(plane, sandbox, {
        from: ['running', 'paused'],
        through: 'snapshotting',
        act: async () => {
          const { template, sandbox: info } = await plane.host.snapshot(id, templateId, name);
          return { info, value: template };
        },
      });
      return { done, parent: sandbox.build_id };
    });
    const row = await throughOutage(async () => {
      const more = { created_at: new Date(), source_sandbox_id: id };
      await recordTemplate(plane, done.value, teamId, parent, more).catch((error) =>
        giveUpTaken(plane, templateId, name, error),
      );
      return findTemplate(plane.db, teamId, templateId);
    });
    if (!row) throw new ThawError('conflict', `template ${name} was deleted meanwhile`);
    return { row, timings: done.timings };
  });
}

/** The tags of one template have its id in common, whichever was there first. */
async function newTagId(plane: Plane, teamId: string, name: string, freshId: string): Promise<string> {
  const [other] = await findTags(plane.db, teamId, baseOf(name));
  if (other?.type === 'base') throw baseTemplate(baseOf(name));
  return tagged(other === undefined ? freshId : baseOf(other.id), tagOf(name));
}

/** Another control plane has made a template of that name meanwhile: this one is taken back. */
async function giveUpTaken(plane: Plane, templateId: string, name: string, error: unknown): Promise<never> {
  if (!isTaken(error)) throw error;
  await plane.host.deleteSnapshot(templateId);
  throw new ThawError('already_exists', `template ${name} was made by somebody else meanwhile`);
}

function checkName(
  taken: TemplateRow | undefined,
  name: string,
  overwrite: boolean,
): TemplateRow | undefined {
  if (taken?.type === 'base') throw baseTemplate(name);
  if (taken && !overwrite) {
    throw new ThawError('already_exists', `template ${name} exists; ?overwrite=true replaces it`);
  }
  return taken;
}

function baseTemplate(name: string): ThawError {
  return new ThawError('already_exists', `${name} is a base template and cannot be overwritten`);
}
