/** The outcome of a long run, written to the file that `THAW_RESULTS` names. */
import { execFileSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';

/** The commit that is tested; empty outside a repository. */
function commit(): string {
  try {
    const git = (...args: string[]) =>
      execFileSync('git', args, { cwd: path.join(import.meta.dirname, '../..'), encoding: 'utf8' }).trim();
    // The results of other runs are no change of what is tested.
    const changed = git('status', '--porcelain', '--', '.', ':!docs/results', ':!docs/e2b.md') !== '';
    return `${git('rev-parse', '--short', 'HEAD')}${changed ? '-dirty' : ''}`;
  } catch {
    return '';
  }
}

export async function saveResults(title: string, facts: Record<string, string>, body: string): Promise<void> {
  const file = process.env.THAW_RESULTS;
  if (file === undefined) return;
  const head = Object.entries({ date: new Date().toISOString(), commit: commit(), ...facts });
  const lines = [`# ${title}`, '', ...head.map(([name, value]) => `- ${name}: ${value}`), '', body];
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, `${lines.join('\n').trimEnd()}\n`);
}

export function table(columns: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  return [line(columns), line(columns.map(() => '---')), ...rows.map(line)].join('\n');
}

/** Counts how points ended, by verb and victim. */
export class Outcomes {
  readonly #title: string;
  readonly #seed: string;
  readonly #counts = new Map<string, Map<string, number>>();

  constructor(title: string, seed: string) {
    this.#title = title;
    this.#seed = seed;
  }

  add(verb: string, victim: string, outcome: string): void {
    const key = `${verb} | ${victim}`;
    const counts = this.#counts.get(key) ?? new Map<string, number>();
    counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
    this.#counts.set(key, counts);
  }

  /** `of`: how many points there are. */
  async save(of: number): Promise<void> {
    const sum = (counts: Map<string, number>) => counts.values().reduce((total, count) => total + count, 0);
    const rows = [...this.#counts].map(([key, counts]) => {
      const said = [...counts].map(([outcome, count]) => `${outcome} (${count})`).join(', ');
      return [...key.split(' | '), sum(counts), said];
    });
    const points = this.#counts.values().reduce((total, counts) => total + sum(counts), 0);
    const body = table(['verb', 'what dies', 'points', 'what became of the sandbox'], rows);
    await saveResults(this.#title, { seed: this.#seed, points: `${points} of ${of}` }, body);
  }
}
