/**
 * A guest may be hung or hostile. Whoever waits for it waits a while and no longer: time counts only while the guest
 * is the one that has to act, never while a slow caller keeps it waiting.
 */
import { ThawError } from '@thaw/api';
import { refusal } from './refusal.ts';

export interface Patience {
  /** For the first sign of life of a call: an emulated guest with much to do takes seconds. */
  answerMs: number;
  /** Between two signs of life; streams are told to give one every `KEEPALIVE_SEC`. */
  silenceMs: number;
}

export const PATIENCE: Patience = { answerMs: 60_000, silenceMs: 120_000 };
export const KEEPALIVE_SEC = 30;

export class Silence implements Disposable {
  readonly signal: AbortSignal;
  readonly #patience: Patience;
  readonly #abort = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #limit: NodeJS.Timeout | undefined;

  /** `signal` aborts with an `agent_error` when the guest was silent for too long, and with `outer`. */
  constructor(patience: Patience, outer?: AbortSignal) {
    this.#patience = patience;
    this.signal = outer ? AbortSignal.any([outer, this.#abort.signal]) : this.#abort.signal;
  }

  /** The guest has to answer from now on, within `timeoutMs` if that is given. */
  expectAnswer(timeoutMs = this.#patience.answerMs): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#abort.abort(new ThawError('agent_error', 'the guest agent does not answer'));
    }, timeoutMs);
  }

  /** The guest has to go on. */
  expectMore(): void {
    this.expectAnswer(this.#patience.silenceMs);
  }

  /** However the guest may talk meanwhile, all is to be over in `timeoutMs`. */
  limit(timeoutMs: number): void {
    this.#limit = setTimeout(() => {
      this.#abort.abort(new ThawError('agent_error', 'the guest agent came to no end in time'));
    }, timeoutMs);
  }

  /** It did, or somebody else is next. */
  relax(): void {
    clearTimeout(this.#timer);
  }

  /** Ends whatever uses the signal. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#limit);
    this.#abort.abort(new ThawError('unavailable', 'the call is over'));
  }

  /** The error to tell instead of `error`, which may be no more than the echo of the abort. */
  reason(error: unknown): unknown {
    return this.signal.aborted ? this.signal.reason : error;
  }

  /** Passes `messages` on, each awaited with a limit. */
  async *listen<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
    this.expectAnswer();
    for await (const message of messages) {
      this.relax();
      yield message;
      this.expectMore();
    }
    this.relax();
  }
}

/** A call with one answer, which must come in time. */
export async function answered<T>(
  patience: Patience,
  call: (options: { signal: AbortSignal }) => Promise<T>,
  outer?: AbortSignal,
): Promise<T> {
  using silence = new Silence(patience, outer);
  silence.expectAnswer();
  try {
    return await call({ signal: silence.signal });
  } catch (error) {
    throw refusal(silence.reason(error));
  }
}
