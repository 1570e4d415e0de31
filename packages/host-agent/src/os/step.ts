/**
 * The seam through which every side effect on the host goes. Each effect has a label (`pause:commit-head`),
 * so that a test can fail, or stop the process at, exactly one step.
 */
export type Fault = (label: string) => void | Promise<void>;

/** Told of each step's end. */
export type Observe = (label: string, ms: number, failed: boolean) => void;

export class Steps {
  readonly #fault: Fault | undefined;
  readonly #observe: Observe | undefined;
  readonly #timings = new Map<string, number>();

  constructor(fault?: Fault, observe?: Observe) {
    this.#fault = fault;
    this.#observe = observe;
  }

  /** Runs `action` under `label`; a fault set for that label is thrown before the action runs. */
  async run<T>(label: string, action: () => T | Promise<T>): Promise<T> {
    const started = performance.now();
    let failed = true;
    try {
      await this.#fault?.(label);
      const result = await action();
      failed = false;
      return result;
    } finally {
      const ms = performance.now() - started;
      this.#timings.set(label, ms);
      this.#observe?.(label, ms, failed);
    }
  }

  /** Adds a time that is not one step's. */
  note(label: string, ms: number): void {
    this.#timings.set(label, ms);
    this.#observe?.(label, ms, false);
  }

  /** Milliseconds of the last run of each label, oldest label first. */
  timings(): ReadonlyMap<string, number> {
    return this.#timings;
  }
}
