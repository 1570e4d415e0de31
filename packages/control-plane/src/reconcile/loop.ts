/**
 * Brings rows and host together, at the start and ever after. Rows are read before the host's list, and each change is
 * guarded by the row's revision: a sandbox that moved in between is looked at again in the next round.
 */
import type { SandboxStatus } from '@thaw/api';
import { livePlanes } from '../db/presence.ts';
import type { Plane } from '../plane.ts';
import { listLiveSandboxes, type SandboxRow } from '../sandbox/table.ts';
import { syncTemplates } from '../template/sync.ts';
import { apply } from './settle.ts';

const RETRY_MS = 500;
const RESTING: readonly SandboxStatus[] = ['running', 'paused', 'error', 'stopped'];

/** One round. Answers how many rows changed. */
export async function reconcile(plane: Plane): Promise<number> {
  const rows = (await listLiveSandboxes(plane.db, plane.hostId)).filter((row) => !plane.verbs.has(row.id));
  const alive = await livePlanes(plane.db);
  const infos = new Map((await plane.host.list()).map((info) => [info.sandboxId, info]));
  let changed = 0;
  for (const row of rows) {
    if (plane.verbs.has(row.id) || isAnothers(plane, row, alive)) continue;
    const info = infos.get(row.id);
    try {
      if (!(await apply(plane, row, info))) continue;
    } catch (error) {
      plane.log.warn({ err: error, sandbox: row.id }, 'a sandbox could not be reconciled');
      continue;
    }
    changed += 1;
    const message = `it was ${row.status}, its host says ${info?.errorReason ?? info?.status ?? 'nothing of it'}`;
    plane.history.record(row.id, { verb: 'settle', outcome: 'done', ms: 0, message });
    plane.log.info({ sandbox: row.id, was: row.status, host: info?.status ?? 'unknown' }, 'reconciled');
  }
  return changed;
}

/** Another control plane that is alive is at work on it. It was asked after the row was read, so it is not a new one. */
function isAnothers(plane: Plane, row: SandboxRow, alive: ReadonlySet<number>): boolean {
  return (
    !RESTING.includes(row.status) && row.plane !== null && row.plane !== plane.id && alive.has(row.plane)
  );
}

/** Rounds every `everyMs` until the returned function is called, which waits for the round under way. */
export function startReconcile(plane: Plane, everyMs: number): () => Promise<void> {
  let stopped = false;
  let wake = () => {};
  const loop = async () => {
    while (!stopped) {
      let waitMs = everyMs;
      try {
        await syncTemplates(plane);
        await reconcile(plane);
      } catch (error) {
        waitMs = Math.min(everyMs, RETRY_MS);
        plane.log.warn({ err: error }, 'reconcile: the host or the database cannot be reached');
      }
      if (stopped) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, waitMs);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  };
  const running = loop();
  return async () => {
    stopped = true;
    wake();
    await running;
  };
}
