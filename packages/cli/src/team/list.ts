import { QUOTA_FIELDS } from '@thaw/api';
import type { Context } from '../context.ts';
import { share } from '../key/quota.ts';
import { age, printJson, printTable } from '../print.ts';

export async function list(context: Context): Promise<void> {
  const teams = await context.thaw().teams.list();
  if (context.json) return printJson(teams);
  const rows = teams.map((team) => [
    team.id,
    team.closing ? `${team.name}, being deleted` : team.name,
    ...QUOTA_FIELDS.map((field) => share(team, field)),
    age(team.created_at),
  ]);
  await printTable(['ID', 'NAME', 'SANDBOXES', 'VCPUS', 'MEMORY', 'DISK', 'AGE'], rows);
}
