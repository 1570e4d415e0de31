import { QUOTA_FIELDS } from '@thaw/api';
import type { Context } from '../context.ts';
import { age, printJson, printTable } from '../print.ts';
import { share } from './quota.ts';

export async function list(context: Context): Promise<void> {
  const keys = await context.thaw().keys.list();
  if (context.json) return printJson(keys);
  const rows = keys.map((key) => [
    key.id,
    key.name || '-',
    `${key.prefix}…`,
    key.admin ? 'yes' : '-',
    ...QUOTA_FIELDS.map((field) => share(key, field)),
    age(key.created_at),
  ]);
  await printTable(['ID', 'NAME', 'KEY', 'ADMIN', 'SANDBOXES', 'VCPUS', 'MEMORY', 'DISK', 'AGE'], rows);
}
