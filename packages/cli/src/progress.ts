/** Slow steps, told on standard error to somebody who watches; a pipe or `--json` sees nothing of them. */

export interface Progress {
  /** Shows `text` while `action` runs. */
  step<T>(text: string, action: () => Promise<T>): Promise<T>;
  /** One sentence for whoever watches or reads the log. */
  say(text: string): void;
}

export function terminalProgress(): Progress {
  return {
    async step(text, action) {
      // Loaded only where somebody watches: most runs of the program show nothing.
      const { default: ora } = await import('ora');
      // Input stays alone: what is typed meanwhile is not ours, and Ctrl-C must arrive as a signal.
      const spinner = ora({ text, stream: process.stderr, discardStdin: false }).start();
      const started = performance.now();
      try {
        const result = await action();
        spinner.succeed(`${text} (${seconds(performance.now() - started)})`);
        return result;
      } catch (error) {
        spinner.fail(text);
        throw error;
      }
    },
    say: (text) => process.stderr.write(`${text}\n`),
  };
}

export function silentProgress(): Progress {
  return { step: (_, action) => action(), say: (text) => process.stderr.write(`${text}\n`) };
}

export function chooseProgress(json: boolean): Progress {
  return json || !process.stderr.isTTY ? silentProgress() : terminalProgress();
}

function seconds(ms: number): string {
  return ms < 10_000 ? `${(ms / 1000).toFixed(2)} s` : `${Math.round(ms / 1000)} s`;
}
