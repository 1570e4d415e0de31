/** What a client sends for a program's input, fed to it one after the other. */
import type { StreamInput } from '@thaw/api';

export type Feed = Extract<StreamInput, { type: 'stdin' | 'stdin_close' }>;

/** Characters that may wait for the program before the client has to. */
const WAITING_CHARS_MAX = 1024 * 1024;

export class InputQueue {
  readonly #feed: (message: Feed) => Promise<void>;
  #last: Promise<void> = Promise.resolve();
  #waitingChars = 0;

  /** `feed` resolves when the program has it, and never rejects. */
  constructor(feed: (message: Feed) => Promise<void>) {
    this.#feed = feed;
  }

  add(message: Feed): void {
    const size = message.type === 'stdin' ? message.data.length : 0;
    this.#waitingChars += size;
    this.#last = this.#last.then(async () => {
      await this.#feed(message);
      this.#waitingChars -= size;
    });
  }

  /** Resolves when more may be added. */
  async room(): Promise<void> {
    while (this.#waitingChars >= WAITING_CHARS_MAX) await this.#last;
  }
}
