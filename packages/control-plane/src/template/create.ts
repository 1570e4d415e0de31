import { type CreateSnapshot, newTemplateId, type TemplateInfo, ThawError } from '@thaw/api';
import { isTaken, throughOutage } from '../db/connect.ts';
import { noteTarget } from '../http/request.ts';
import type { Plane } from '../plane.ts';
import { requireSandbox, wrongState } from '../sandbox/sandbox.ts';
import { transition } from '../sandbox/transition.ts';
import { recordTemplate } from './sync.ts';
import { findTemplate, insertOwner, type TemplateRow } from './table.ts';
import { toTemplate } from './template.ts';
import { warmUp } from './warm-up.ts';

/**
 * Freezes a sandbox into a template; the sandbox keeps its state. Overwriting moves the template's head to the new
 * build: nothing of the old one is touched before the new one is complete.
 */
export async function createSnapshot(
  plane: Plane,
  teamId: string,
  wish: CreateSnapshot,
  overwrite: boolean,
): Promise<TemplateInfo> {
  noteTarget(wish.sandbox_id);
  const freshId = newTemplateId();
  const name = wish.name ?? freshId;
  if (wish.name !== undefined) noteTarget(wish.name);
  const key = `snapshot ${wish.sandbox_id} ${overwrite} ${JSON.stringify(wish.warm_up)}`;
  return plane.templateVerbs.run(`${teamId}/${name}`, key, `template ${name} is being written`, async () => {
    const taken = checkName(await findTemplate(plane.db, teamId, name), name, overwrite);
    if (wish.warm_up !== undefined) await warmUp(plane, teamId, wish.sandbox_id, wish.warm_up);
    const sandbox = await requireSandbox(plane, teamId, wish.sandbox_id);
    if (sandbox.status !== 'running' && sandbox.status !== 'paused') throw wrongState(sandbox);
    const templateId = taken?.id ?? freshId;
    if (!taken) await insertOwner(plane.db, templateId, teamId);
    noteTarget(templateId);
    const done = await plane.verbs.run(
      sandbox.id,
      `snapshot ${name}`,
      `sandbox ${sandbox.id} is snapshotting`,
      () =>
        transition(plane, sandbox, {
          from: ['running', 'paused'],
          through: 'snapshotting',
          act: async () => {
            const { template, sandbox: info } = await plane.host.snapshot(sandbox.id, templateId, name);
            return { info, value: template };
          },
        }),
    );
    const row = await throughOutage(async () => {
      await recordTemplate(plane, done.value, teamId, sandbox.build_id).catch((error) =>
        giveUpTaken(plane, templateId, name, error),
      );
      return findTemplate(plane.db, teamId, templateId);
    });
    if (!row) throw new ThawError('conflict', `template ${name} was deleted meanwhile`);
    return toTemplate(row, done.timings);
  });
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
  if (taken?.type === 'base') {
    throw new ThawError('already_exists', `${name} is a base template and cannot be overwritten`);
  }
  if (taken && !overwrite) {
    throw new ThawError('already_exists', `template ${name} exists; ?overwrite=true replaces it`);
  }
  return taken;
}
