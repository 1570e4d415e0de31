import type { Context } from '../context.ts';
import { bytes, printJson, printTable } from '../print.ts';

export interface ListFilesOptions {
  user?: string;
  depth?: number;
}

/** Shows what is in a folder of a sandbox. */
export async function listFiles(
  context: Context,
  id: string,
  folder: string,
  { user, depth }: ListFilesOptions,
): Promise<void> {
  const options = { ...(user && { user }), ...(depth && { depth }) };
  const entries = await context.thaw().sandboxes.listDir(id, folder, options);
  if (context.json) return printJson(entries);
  if (entries.length === 0) return;
  const rows = entries.map((entry) => [
    entry.permissions,
    entry.owner,
    bytes(entry.size),
    entry.modified_at.slice(0, 19).replace('T', ' '),
    printable(entry.path) +
      (entry.symlink_target === undefined ? '' : ` -> ${printable(entry.symlink_target)}`),
  ]);
  return printTable(['PERMISSIONS', 'OWNER', 'SIZE', 'MODIFIED', 'PATH'], rows);
}

/** A guest's names must not write to the terminal what they like. */
function printable(name: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
  return name.replace(/[\x00-\x1f\x7f-\x9f]/g, '?');
}
