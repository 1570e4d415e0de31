/** Makes a row follow the host. */
import type { SandboxInfo } from '@thaw/api/rpc';
import type { Plane } from '../plane.ts';
import { finishDestroy } from '../sandbox/end.ts';
import { recordHostState } from '../sandbox/sandbox.ts';
import { findSandbox, moveSandbox, type SandboxRow } from '../sandbox/table.ts';
import { verdict } from './verdict.ts';

/** Asks the host about one row whose verb failed, and writes down the answer. */
export async function settle(plane: Plane, row: SandboxRow): Promise<void> {
  const infos = await plane.host.list();
  await apply(
    plane,
    row,
    infos.find((info) => info.sandboxId === row.id),
  );
}

/** Does what the verdict says, unless the row changed since it was read. True if something changed. */
export async function apply(plane: Plane, row: SandboxRow, info: SandboxInfo | undefined): Promise<boolean> {
  const judged = verdict(row, info);
  switch (judged.kind) {
    case 'keep':
      return false;
    case 'follow':
      return (await recordHostState(plane, row, [row.status], judged.info, {}, row.revision)) !== undefined;
    case 'become': {
      const patch = { status: judged.status, host_ip: null, error_reason: judged.reason ?? null };
      return (await moveSandbox(plane.db, row.id, [row.status], patch, row.revision)) !== undefined;
    }
    case 'network':
      return plane.verbs.run(
        row.id,
        'reconcile',
        `sandbox ${row.id}: its network is being changed`,
        async () => {
          const now = await findSandbox(plane.db, row.team_id, row.id);
          if (now?.revision !== row.revision) return false;
          await plane.host.setNetwork(row.id, row.network);
          return true;
        },
      );
    case 'destroy': {
      const stopping = await moveSandbox(
        plane.db,
        row.id,
        [row.status],
        { status: 'stopping', plane: plane.id },
        row.revision,
      );
      if (stopping) await finishDestroy(plane, stopping);
      return stopping !== undefined;
    }
  }
}
