import { TemplateType, ThawError } from '@thaw/api';
import type { Context } from '../context.ts';
import { age, bytes, printJson, printTable } from '../print.ts';

export async function list(context: Context, options: { type?: string }): Promise<void> {
  const found = await Array.fromAsync(context.thaw().snapshots.list(parseType(options.type)));
  if (context.json) return printJson(found);
  const rows = found.map((template) => [
    template.name,
    template.error_reason === undefined ? template.type : `${template.type}, damaged`,
    template.memory_mb === undefined ? '-' : `${template.memory_mb} MiB`,
    bytes(template.size_bytes),
    age(template.created_at),
  ]);
  await printTable(['NAME', 'TYPE', 'MEMORY', 'SIZE', 'AGE'], rows);
}

function parseType(text: string | undefined): TemplateType | undefined {
  if (text === undefined) return undefined;
  const parsed = TemplateType.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new ThawError('invalid_request', `${text} is no type of a template: base or snapshot`);
}
