import type { AuditLine, ListAuditInput } from '@thaw/api';
import type { Context } from '../context.ts';
import { printJson, printTable } from '../print.ts';

export type AuditOptions = Omit<ListAuditInput, 'limit' | 'next_token'> & { limit?: number };

const LINES = 100;

/** The newest lines that the options name. */
export async function list(context: Context, { limit = LINES, ...filter }: AuditOptions): Promise<void> {
  const lines: AuditLine[] = [];
  for await (const line of context.thaw().audit(filter)) {
    if (lines.length >= limit) break;
    lines.push(line);
  }
  if (context.json) return printJson(lines);
  const rows = lines.map((line) => [
    line.at,
    line.team ?? '-',
    line.actor,
    line.address ?? '-',
    line.verb,
    line.target || '-',
    line.outcome,
    line.request_id ?? '-',
  ]);
  await printTable(['TIME', 'TEAM', 'KEY', 'FROM', 'VERB', 'TARGET', 'OUTCOME', 'REQUEST'], rows);
}
