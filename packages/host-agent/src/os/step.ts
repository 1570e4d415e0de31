/**
 * The seam through which every side effect on the host goes. Each effect has a label (`pause:commit-head`),
 * so that a test can fail, or stop the process at, exactly one step.
 */
export type Fault = (label: string) => void | Promise<void>;

export class Steps {
  readonly #fault: Fault | undefined;
  readonly #timings = new Map<string, number>();

  constructor(fault?: Fault) {
    this.#fault = fault;
  }

  /** Runs `action` under `label`; a fault set for that label is thrown before the action runs. */
  async run<T>(label: string, action: () => T | Promise<T>): Promise<T> {
    const started = performance.now();
    try {
      await this.#fault?.(label);
      return await action();
    } finally {
      this.#timings.set(label, performance.now() - started);
    }
  }

  /** Adds a time that is not one step's. */
  note(label: string, ms: number): void {
    this.#timings.set(label, ms);
  }

  /** Milliseconds of the last run of each label, oldest label first. */
  timings(): ReadonlyMap<string, number> {
    return this.#timings;
  }
}
