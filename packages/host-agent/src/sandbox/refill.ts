/** What is made in the background before anybody asks: when, and one run at a time. */
export interface Filling {
  /** Makes what is missing. Answers the milliseconds after which it is to be tried again, if it is. */
  fill: () => Promise<number | undefined>;
  failed: (error: unknown) => void;
  /** After a failure. */
  retryMs: number;
}

export class Refill implements AsyncDisposable {
  readonly #filling: Filling;
  #running: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isClosing = false;

  constructor(filling: Filling) {
    this.#filling = filling;
  }

  /** From now on nothing more is begun. */
  get isClosing(): boolean {
    return this.#isClosing;
  }

  /** Fills after `ms`, instead of when it was to be before. One that fills now is left to it. */
  after(ms: number): void {
    if (this.#isClosing || this.#running !== undefined) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const { fill, failed, retryMs } = this.#filling;
      this.#running = fill()
        .catch((error: unknown) => {
          failed(error);
          return retryMs;
        })
        .then((again) => {
          this.#running = undefined;
          if (again !== undefined) this.after(again);
        });
    }, ms);
    this.#timer.unref();
  }

  /** Resolves when nothing is being made any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosing = true;
    clearTimeout(this.#timer);
    await this.#running;
  }
}
