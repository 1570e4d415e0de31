/** What the daemons print, on standard error: as it is for a journal, only what matters for somebody who watches. */

const WARN = 40;

/** `all`: every line as it is; otherwise warnings and errors in plain words. */
export function logLine(all: boolean, name: string, line: string): string | undefined {
  const record = parse(line);
  if (all) return record === undefined ? `${name}: ${line}` : line;
  // PostgreSQL's ordinary messages have the severity LOG.
  if (record === undefined) return / LOG: /.test(line) ? undefined : `${name}: ${line}`;
  if (record.level < WARN) return undefined;
  const cause = record.err?.message === undefined ? '' : ` (${record.err.message})`;
  return `${name}: ${record.msg ?? 'an error'}${cause}`;
}

export interface LogRecord {
  level: number;
  msg?: string;
  url?: string;
  proxyUrl?: string;
  proxyTlsUrl?: string;
  err?: { message?: string };
}

/** A line of pino's; undefined for any other text. */
export function parse(line: string): LogRecord | undefined {
  try {
    const value: unknown = JSON.parse(line);
    const known =
      typeof value === 'object' && value !== null && 'level' in value && typeof value.level === 'number';
    return known ? (value as LogRecord) : undefined;
  } catch {
    return undefined;
  }
}
