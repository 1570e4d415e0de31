/** What a Thaw counts. */

export type Labels = Record<string, string>;

/** The samples of Prometheus' text format. */
export class Figures {
  readonly #lines: string[];

  constructor(text: string) {
    this.#lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  }

  /** The sum over all samples with these labels; 0 if there is none. */
  sum(name: string, labels: Labels = {}): number {
    return this.#lines
      .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
      .filter((line) => Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`)))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  }
}
