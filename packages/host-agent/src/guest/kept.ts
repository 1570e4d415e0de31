/** The output of a program that is answered as a whole: bounded for each, and for all of them together. */
import { ThawError } from '@thaw/api';

/** The most of stdout, and the most of stderr. */
export const OUTPUT_BYTES_MAX = 8 * 2 ** 20;
/** Of all programs together. */
const TOTAL_BYTES_MAX = 128 * 2 ** 20;
/** Always granted: one sandbox's floods do not refuse the small answers of others. */
const SMALL_BYTES = 64 * 1024;

type Source = 'stdout' | 'stderr';

let totalBytes = 0;

export class Kept implements Disposable {
  // One buffer that doubles, not a list: a guest may send its output byte by byte.
  readonly #held: Record<Source, { buffer: Buffer; size: number }> = {
    stdout: { buffer: Buffer.alloc(0), size: 0 },
    stderr: { buffer: Buffer.alloc(0), size: 0 },
  };

  /** Throws `too_large`, or `unavailable` when others hold what there is. */
  add(source: Source, data: Uint8Array): void {
    const held = this.#held[source];
    const size = held.size + data.length;
    if (size > OUTPUT_BYTES_MAX) {
      const limit = `${OUTPUT_BYTES_MAX / 2 ** 20} MiB`;
      throw new ThawError(
        'too_large',
        `more than ${limit} of ${source}: use exec/stream; the program was killed`,
      );
    }
    if (size > held.buffer.length) this.#grow(held, Math.max(size, 2 * held.buffer.length, 4096));
    held.buffer.set(data, held.size);
    held.size = size;
  }

  all(source: Source): Uint8Array {
    const { buffer, size } = this.#held[source];
    return buffer.subarray(0, size);
  }

  [Symbol.dispose](): void {
    totalBytes -= this.#held.stdout.buffer.length + this.#held.stderr.buffer.length;
  }

  #grow(held: { buffer: Buffer; size: number }, capacity: number): void {
    const more = capacity - held.buffer.length;
    if (capacity > SMALL_BYTES && totalBytes + more > TOTAL_BYTES_MAX) {
      throw new ThawError('unavailable', 'too many large outputs at once: use exec/stream, or try again');
    }
    const buffer = Buffer.alloc(capacity);
    buffer.set(held.buffer.subarray(0, held.size));
    held.buffer = buffer;
    totalBytes += more;
  }
}
