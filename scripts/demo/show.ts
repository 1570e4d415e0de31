/** What somebody who watches sees: numbered steps with their times, and under each what proves it. Plain text; colours on a terminal. */

const WIDTH = 84;

/** Prints one line of a step. */
export interface Tell {
  /** Something that is so. */
  note(text: string): void;
  /** Something that has to be so: the demo fails with `text` when it is not. */
  prove(holds: boolean, text: string): void;
}

/** A proof that failed. */
export class Disproved extends Error {}

export class Show {
  readonly #out: NodeJS.WriteStream;
  readonly #terminal: boolean;
  #steps = 0;

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
    this.#terminal = out.isTTY && process.env.NO_COLOR === undefined;
  }

  line(text = ''): void {
    this.#out.write(`${text}\n`);
  }

  head(text: string): void {
    this.line(this.#paint('1', text));
  }

  /** Runs a step; its lines come under its title as soon as they are true. */
  async step<T>(title: string, action: (tell: Tell) => Promise<T>): Promise<T> {
    this.#steps++;
    const started = performance.now();
    this.line();
    this.line(this.#paint('1', `${String(this.#steps).padStart(2)}  ${title}`));
    const result = await action({
      note: (text) => this.line(`      ${text}`),
      prove: (holds, text) => {
        if (!holds) throw new Disproved(text);
        this.line(`    ${this.#paint('32', '✓')} ${text}`);
      },
    });
    this.line(this.#paint('2', `      done in ${seconds(performance.now() - started)}`));
    return result;
  }

  fail(text: string): void {
    this.line();
    this.line(`${this.#paint('31', '✗')} ${text}`);
  }

  rule(): void {
    this.line(this.#paint('2', '─'.repeat(WIDTH)));
  }

  #paint(code: string, text: string): string {
    return this.#terminal ? `\x1b[${code}m${text}\x1b[0m` : text;
  }
}

export function seconds(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

export function mebibytes(bytes: number): string {
  const mib = bytes / 2 ** 20;
  return `${mib >= 100 ? Math.round(mib) : mib.toFixed(1)} MiB`;
}
