/**
 * A verb on one sandbox: guard, act on the host, write down what came of it.
 *
 *   pending ─► running ─► pausing ─► paused ─► resuming ─► running      any ─► stopping ─► stopped
 *                 └──► snapshotting ─► running                          the VM died ─► error
 *
 * Each arrow is one guarded statement. If the host fails, it is asked what is true now and the row follows; if it
 * cannot be asked, the row stays in its transitional status until reconcile can.
 */
import type { SandboxStatus } from '@thaw/api';
import { ThawError } from '@thaw/api';
import type { SandboxInfo } from '@thaw/api/rpc';
import { admit } from '../auth/quota.ts';
import { type Database, throughOutage } from '../db/connect.ts';
import type { Plane } from '../plane.ts';
import { settle } from '../reconcile/settle.ts';
import { type Done, recordHostState, wrongState } from './sandbox.ts';
import { findSandbox, moveSandbox, type SandboxPatch, type SandboxRow } from './table.ts';

export interface Verb<T> {
  from: readonly SandboxStatus[];
  through: SandboxStatus;
  /** It takes CPU and memory: only if the quotas allow. */
  admitted?: true;
  /** Asked last before the guard: false leaves the sandbox as it is. */
  still?: () => boolean;
  /** Only if nothing else happened to the row since. */
  revision?: number;
  /** Asks the host; `info` is the sandbox's state after it. */
  act: (guarded: SandboxRow) => Promise<{ info: SandboxInfo; value: T }>;
  patch?: (before: SandboxRow, value: T) => SandboxPatch;
}

export async function transition<T>(
  plane: Plane,
  row: SandboxRow,
  verb: Verb<T>,
): Promise<Done & { value: T }> {
  const before = (await findSandbox(plane.db, row.team_id, row.id)) ?? row;
  const move = async (db: Database) =>
    verb.still?.() === false
      ? undefined
      : moveSandbox(db, row.id, verb.from, { status: verb.through, plane: plane.id }, verb.revision);
  const owner = { teamId: row.team_id, keyId: row.key_id };
  const guarded = await (verb.admitted ? admit(plane.db, owner, move) : move(plane.db));
  if (!guarded) {
    const now = await findSandbox(plane.db, row.team_id, row.id);
    throw now ? wrongState(now) : new ThawError('not_found', `sandbox ${row.id} does not exist`);
  }
  let result: { info: SandboxInfo; value: T };
  try {
    result = await verb.act(guarded);
  } catch (error) {
    await settle(plane, guarded).catch((cause) =>
      plane.log.warn({ err: cause, sandbox: row.id }, 'the state after a failed verb is not known yet'),
    );
    const lost = error instanceof ThawError && error.kind === 'not_found';
    const now = lost ? await findSandbox(plane.db, row.team_id, row.id) : undefined;
    throw now ? wrongState(now) : error;
  }
  const { info, value } = result;
  const after = await throughOutage(() =>
    recordHostState(plane, guarded, [verb.through], info, verb.patch?.(before, value)),
  );
  if (!after) throw new ThawError('conflict', `sandbox ${row.id} was changed by someone else`);
  return { row: after, timings: info.timingsMs, value };
}
