/**
 * Brings rows and host together, at the start and ever after. Rows are read before the host's list, and each change is
 * guarded by the row's revision: a sandbox that moved in between is looked at again in the next round.
 */
import type { SandboxStatus } from '@thaw/api';
import type { Config } from '../config.ts';
import { livePlanes } from '../db/presence.ts';
import { DEADLINE_MS } from '../host/agent.ts';
import type { Plane } from '../plane.ts';
import { listLiveSandboxes, type SandboxRow } from '../sandbox/table.ts';
import { syncTemplates } from '../template/sync.ts';
import { Orphans } from './orphans.ts';
import { retain } from './retention.ts';
import { apply } from './settle.ts';

const RETRY_MS = 500;
/** With what writing down its result may take through an outage of the database. */
const VERB_MS_MAX = Math.max(...Object.values(DEADLINE_MS)) + 60_000;
const RESTING: readonly SandboxStatus[] = ['running', 'paused', 'error', 'stopped'];

/** One round. Answers how much changed. */
export async function reconcile(plane: Plane, orphans?: Orphans): Promise<number> {
  const rows = (await listLiveSandboxes(plane.db, plane.hostId)).filter((row) => !plane.verbs.has(row.id));
  const alive = await livePlanes(plane.db);
  const listed = await plane.host.list();
  const infos = new Map(listed.map((info) => [info.sandboxId, info]));
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
  return changed + ((await orphans?.sweep(listed)) ?? 0);
}

/**
 * Another control plane that is alive is at work on it, and not for longer than any verb may take. It was asked after
 * the row was read, so it is not a new one.
 */
function isAnothers(plane: Plane, row: SandboxRow, alive: ReadonlySet<number>): boolean {
  if (RESTING.includes(row.status) || row.plane === null || row.plane === plane.id) return false;
  return alive.has(row.plane) && Date.now() < row.status_since.getTime() + VERB_MS_MAX;
}

export type ReconcileConfig = Pick<Config, 'reconcileMs' | 'orphanGraceMs' | 'retention'>;

/** Rounds every `reconcileMs` until the returned function is called, which waits for the round under way. */
export function startReconcile(plane: Plane, config: ReconcileConfig): () => Promise<void> {
  const everyMs = config.reconcileMs;
  const orphans = new Orphans(plane, config.orphanGraceMs);
  let stopped = false;
  let wake = () => {};
  const loop = async () => {
    while (!stopped) {
      let waitMs = everyMs;
      try {
        await syncTemplates(plane);
        await reconcile(plane, orphans);
        await retain(plane, config.retention);
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
