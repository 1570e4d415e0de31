import type { Context } from '../context.ts';
import { type QuotaOptions, tellQuota, toQuota } from '../key/quota.ts';

/** Changes what the options name, and shows what counts then: a team's own quota may be smaller. */
export async function quota(context: Context, team: string, options: QuotaOptions): Promise<void> {
  const granted = toQuota(options);
  const { teams } = context.thaw();
  const changes = Object.keys(granted).length > 0;
  await tellQuota(context, await (changes ? teams.update(team, { granted }) : teams.get(team)));
}
