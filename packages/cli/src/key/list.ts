import { QUOTA_FIELDS } from '@thaw/api';
import type { Context } from '../context.ts';
import { age, printJson, printTable } from '../print.ts';
import { keysOf, type OfTeam, share } from './quota.ts';

export async function list(context: Context, options: OfTeam): Promise<void> {
  const keys = await keysOf(context, options).list();
  if (context.json) return printJson(keys);
  const rows = keys.map((key) => [
    key.id,
    key.name || '-',
    `${key.prefix}…`,
    key.operator ? 'operator' : key.admin ? 'yes' : '-',
    ...QUOTA_FIELDS.map((field) => share(key, field)),
    age(key.created_at),
  ]);
  await printTable(['ID', 'NAME', 'KEY', 'ADMIN', 'SANDBOXES', 'VCPUS', 'MEMORY', 'DISK', 'AGE'], rows);
}
