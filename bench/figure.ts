/** What a benchmark says: a value beside its alternative, measured in the same run, and beside its bar. */

export interface Figure {
  name: string;
  value: number;
  unit: string;
  /** The alternative's value in the same unit; null where there is none. */
  baseline: number | null;
  /** value / baseline. */
  ratio: number | null;
  /** The most that is good enough; null where nothing was promised. */
  bar: number | null;
  ok: boolean;
}

interface Wish {
  unit: string;
  /** Measured in rounds that took turns with the alternative's. */
  values: readonly number[];
  baseline?: readonly number[];
  bar?: number;
}

export function figure(name: string, { unit, values, baseline, bar }: Wish): Figure {
  const value = rounded(median(values));
  const other = baseline === undefined ? null : rounded(median(baseline));
  return {
    name,
    value,
    unit,
    baseline: other,
    ratio: other === null || other === 0 ? null : rounded(value / other),
    bar: bar ?? null,
    ok: bar === undefined || value <= bar,
  };
}

export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error('nothing was measured');
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** `q` of 1 of the values are at most this. */
export function quantile(values: readonly number[], q: number): number {
  if (values.length === 0) throw new Error('nothing was measured');
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
}

/** Aligned columns; a missed bar has a ✗. */
export function table(figures: readonly Figure[]): string {
  const rows = figures.map((each) => [
    each.name,
    `${each.value} ${each.unit}`,
    each.baseline === null ? '' : `${each.baseline} ${each.unit}`,
    each.ratio === null ? '' : `× ${each.ratio}`,
    each.bar === null ? '' : `≤ ${each.bar} ${each.unit}`,
    each.bar === null ? '' : each.ok ? '✓' : '✗',
  ]);
  const all = [['what', 'median', 'alternative', 'ratio', 'bar', ''], ...rows];
  const widths = all[0]!.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  const line = (row: string[]) => row.map((cell, column) => cell.padEnd(widths[column]!)).join('  ');
  return all.map((row) => line(row).trimEnd()).join('\n');
}

/** Three significant digits. */
export function rounded(value: number): number {
  return Number(value.toPrecision(3));
}
