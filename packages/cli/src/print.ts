/** Results on standard output: JSON for programs, aligned columns for people. */

export function printJson(value: unknown): Promise<void> {
  return write(process.stdout, `${JSON.stringify(value)}\n`);
}

export function printLine(line: string): Promise<void> {
  return write(process.stdout, `${line}\n`);
}

export function printTable(head: string[], rows: string[][]): Promise<void> {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  const lines = all.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
  return printLine(lines.join('\n'));
}

/** One fact a line; objects become `name.part`. */
export function printFacts(facts: object): Promise<void> {
  const flat = flatten(facts);
  const width = Math.max(...flat.map(([name]) => name.length));
  return printLine(flat.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n'));
}

/** Resolves when the bytes have gone on: a slow reader slows the writer. */
export function write(to: NodeJS.WriteStream, data: string | Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    to.write(data, (error) => (error == null ? resolve() : reject(error)));
  });
}

/** `3 min`: the largest whole unit since then. */
export function age(since: string, now = Date.now()): string {
  const sec = Math.max(0, Math.floor((now - Date.parse(since)) / 1000));
  if (sec < 120) return `${sec} s`;
  if (sec < 7200) return `${Math.floor(sec / 60)} min`;
  if (sec < 172_800) return `${Math.floor(sec / 3600)} h`;
  return `${Math.floor(sec / 86_400)} d`;
}

export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let value = count;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

function flatten(facts: object, prefix = ''): [string, string][] {
  return Object.entries(facts).flatMap(([name, value]: [string, unknown]): [string, string][] => {
    if (typeof value === 'object' && value !== null) return flatten(value, `${prefix}${name}.`);
    return value === undefined ? [] : [[prefix + name, String(value)]];
  });
}
