/** The processes of a sandbox under its keeper: VMM, pager, block store. */
import type { Keeper } from '../keeper/keeper.ts';
import { ROLES } from '../network/addresses.ts';

/** Host paths of the programs that stand beside every VMM; readable by everyone. */
export interface Programs {
  keeper: string;
  pager: string;
  blockstore: string;
}

/** Undo: nothing of the VM runs on. The keeper itself belongs to the caller. */
export async function endRoles(keeper: Keeper): Promise<void> {
  const ends = ROLES.map((role) => ({ role, end: keeper.gone(role) }));
  const { roles } = await keeper.status().catch(() => ({ roles: {} as Record<string, never> }));
  const ending = ends.filter(({ role }) => roles[role]?.running);
  for (const { role } of ending) await keeper.signal(role, 'KILL').catch(() => {});
  await Promise.all(ending.map(({ end }) => end));
}
