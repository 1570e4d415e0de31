/**
 * A guest may be hung or hostile. Whoever waits for it waits a while and no longer: time counts only while the guest
 * is the one that has to act, never while a slow caller keeps it waiting.
 */
import { ThawError } from '@thaw/api';
import { refusal } from './refusal.ts';

/** The first sign of life of a call: an emulated guest with much to do takes seconds. */
export const ANSWER_WITHIN_MS = 60_000;
/** Between two signs of life; streams are told to give one every `KEEPALIVE_SEC`. */
export const SILENCE_MAX_MS = 120_000;
export const KEEPALIVE_SEC = 30;

export class Silence implements Disposable {
  readonly signal: AbortSignal;
  readonly #abort = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  /** `signal` aborts with an `agent_error` when the guest was silent for too long, and with `outer`. */
  constructor(outer?: AbortSignal) {
    this.signal = outer ? AbortSignal.any([outer, this.#abort.signal]) : this.#abort.signal;
  }

  /** The guest has to act within `timeoutMs` from now. */
  expect(timeoutMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#abort.abort(new ThawError('agent_error', 'the guest agent does not answer'));
    }, timeoutMs);
  }

  /** It did, or somebody else is next. */
  relax(): void {
    clearTimeout(this.#timer);
  }

  /** Ends whatever uses the signal. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#abort.abort(new ThawError('unavailable', 'the call is over'));
  }

  /** The error to tell instead of `error`, which may be no more than the echo of the abort. */
  reason(error: unknown): unknown {
    return this.signal.aborted ? this.signal.reason : error;
  }

  /** Passes `messages` on, each awaited with a limit. */
  async *listen<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
    this.expect(ANSWER_WITHIN_MS);
    for await (const message of messages) {
      this.relax();
      yield message;
      this.expect(SILENCE_MAX_MS);
    }
    this.relax();
  }
}

/** A call with one answer, which must come in time. */
export async function answered<T>(
  call: (options: { signal: AbortSignal }) => Promise<T>,
  outer?: AbortSignal,
  withinMs = ANSWER_WITHIN_MS,
): Promise<T> {
  using silence = new Silence(outer);
  silence.expect(withinMs);
  try {
    return await call({ signal: silence.signal });
  } catch (error) {
    throw refusal(silence.reason(error));
  }
}
